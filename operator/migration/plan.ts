/** The next step of a move, and what is to be said of it. Pure, but for the clock and the turn that are asked for by functions. */
import type { Handover, Migration, MigrationStatus } from "../../crds/migration.ts";
import type { Instance } from "../../crds/instance.ts";
import type { ClaimSeen, NodeSeen, Problem } from "../instance/facts.ts";
import type { EndPhase } from "./attempt.ts";
import { attemptOf, hasEnded, recordOf } from "./attempt.ts";
import { isInPlace } from "./in-place/in-place.ts";
import { planUpdate } from "./in-place/plan.ts";
import type { UpdateLimits } from "./in-place/policy.ts";
import { planDone, planGivenUp } from "./plan-after.ts";
import { planBefore } from "./plan-before.ts";
import { planUnderWay } from "./plan-under-way.ts";
import type { NodeFacts } from "./preflight.ts";
import type { MigrationSettings } from "./settings.ts";
import type { Turn } from "./turns.ts";

/** What of a Migration's status is the operator's. */
export type OwnStatus = Omit<MigrationStatus, "handover" | "source" | "target">;

export interface MoveFacts {
  migration: Migration;
  /** The Instance of that name, whichever it is. */
  instance: Instance | undefined;
  /** The other Migration of the same instance that comes before this one. */
  first: Migration | undefined;
  source: NodeSeen;
  target: NodeSeen;
  /** The claim pod of the present attempt. */
  claim: TargetClaimSeen | undefined;
  /** Claim pods of earlier attempts. */
  oldClaims: readonly ClaimSeen[];
  /** Claim pods of the instance that no Migration made. */
  otherClaims: readonly ClaimSeen[];
  /** The claim pod that the guest leaves. */
  sourceClaim: ClaimSeen | undefined;
  /** Why the API server took no claim, or no other size of one, at the last try. */
  refused: Problem | undefined;
  nodeFacts: (name: string) => NodeFacts;
  hasPool: (name: string) => boolean;
  /** The nodes that say they have a pool of this name. */
  nodesWith: (pool: string) => readonly string[];
  /** Whether both nodes have one and the same pool of this name. */
  isShared: (pool: string) => boolean;
  /** Asks for a turn, or once the target is known for a place there. */
  askTurn: (target: string | undefined) => Turn;
  /** For how long this topic has had this value, in ms; undefined forgets it. */
  lasted: (topic: string, value: string | undefined) => number;
  settings: MigrationSettings;
  /** What the chart says of updates in place. */
  updates: UpdateLimits;
  now: number;
}

export interface TargetClaimSeen extends ClaimSeen {
  /** It bears the label of the Migration that made it. */
  labelled: boolean;
}

export type MoveStep =
  | { do: "nothing" }
  | { do: "wait"; afterMs?: number | undefined }
  /** The status says it all. */
  | { do: "note" }
  | { do: "create-claim" }
  | { do: "delete-claim"; claim: ClaimSeen; graceSeconds: number }
  /** The guest lives in it now: it is a claim as any other. */
  | { do: "take-label-off"; claim: ClaimSeen }
  /** Gives a claim another memory limit while its guest runs. */
  | { do: "resize-claim"; claim: ClaimSeen; toBytes: number }
  /** Gives the guest to the agents: the first record of an attempt. */
  | { do: "begin"; from: Handover | undefined; to: Handover }
  | { do: "write"; from: Handover; to: Handover };

/** Why an attempt is given up. */
export interface Cause extends Problem {
  /** Whether it can pass. */
  retryable: boolean;
}

export interface MovePlan {
  step: MoveStep;
  /** For the status: one CamelCase word, and a sentence. */
  reason: string;
  message: string;
  /** Of the status, besides phase and conditions; undefined takes a field away. */
  set?: Partial<OwnStatus>;
  /** Whether it goes on by itself. False keeps the cause of an attempt that was given up. Default: as it was. */
  progressing?: { status: "True" | "False" } & Problem;
  needsDecision?: Problem;
  /** It is over. */
  end?: EndPhase;
}

/** Claims of attempts that are over: nothing runs in them, or the attempt would not be over. */
function planOldClaims({ oldClaims, migration }: MoveFacts): MovePlan | undefined {
  const claim = oldClaims.find(({ deleting }) => !deleting);
  if (claim === undefined) return undefined;
  const { reason = "Retrying", conditions } = migration.status ?? {};
  const message = conditions?.find(({ type }) => type === "Ready")?.message ?? "";
  return { step: { do: "delete-claim", claim, graceSeconds: 1 }, reason, message };
}

/** The next step of a move. Level-triggered: it may be asked as often as one likes. */
export function planMove(facts: MoveFacts): MovePlan {
  const { migration } = facts;
  if (hasEnded(migration)) {
    const { reason = "", conditions } = migration.status ?? {};
    return { step: { do: "nothing" }, reason, message: conditions?.find(({ type }) => type === "Ready")?.message ?? "" };
  }
  const old = planOldClaims(facts);
  if (old !== undefined) return old;
  const record = recordOf(migration);
  if (isInPlace(migration)) return planUpdate(facts, record, attemptOf(migration));
  if (record === undefined) return planBefore(facts, attemptOf(migration));
  switch (record.state) {
    case "Copying":
    case "Handover":
    case "Target":
      return planUnderWay(facts, record);
    case "Done":
      return planDone(facts, record);
    case "Source":
    default:
      return planGivenUp(facts, record);
  }
}
