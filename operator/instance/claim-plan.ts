/** Which claim an instance should have, and the one step that brings it closer. */
import { claimName } from "../../crds/names.ts";
import type { GuestStatus } from "../../crds/instance.ts";
import { isMoving, type ActiveMove } from "../migration/active.ts";
import { provenOver, type ClaimRecord, type ClaimSeen, type NodeSeen, type Power, type Problem } from "./facts.ts";

export interface ClaimFacts {
  instance: { name: string; uid: string };
  power: Power;
  /** status.claim as it was last written. */
  recorded?: ClaimRecord;
  /** All claim pods that the instance owns. */
  seen: readonly ClaimSeen[];
  guest?: GuestStatus;
  /** The node of the recorded claim. */
  node: NodeSeen;
  /** The Migration that has its turn. */
  move?: ActiveMove | undefined;
  /** Milliseconds since the epoch. */
  now: number;
}

export type ClaimStep =
  /** There is no claim, and none is wanted. */
  | { do: "nothing" }
  /** The claim is there, as it should be. */
  | { do: "keep"; claim: ClaimSeen }
  | { do: "create"; serial: number }
  | { do: "delete"; claim: ClaimSeen }
  /** Somebody else has to act, or time to pass. */
  | ({ do: "wait"; retryAfterMs?: number } & Problem);

export interface ClaimPlan {
  step: ClaimStep;
  /** What status.claim should say now; a node and a uid only while a claim that was bound may still hold something. */
  record?: ClaimRecord;
}

/** A claim that the kubelet refused is made again after this; room on a node rarely comes sooner. */
const REFUSED_RETRY_MS = 10_000;

/**
 * Pods of the instance that are not the claim of `record`, and in which nothing of it runs: made by a mistake, or from outside, or
 * left by a move. The two claims of a move that goes on are that move's own business.
 */
export function strayClaims(
  { seen, guest, move }: Pick<ClaimFacts, "seen" | "guest" | "move">,
  record: ClaimRecord | undefined,
): ClaimSeen[] {
  const isCurrent = (claim: ClaimSeen) => claim.name === record?.name && (record.uid === undefined || claim.uid === record.uid);
  const isLeft = (claim: ClaimSeen) => claim.uid === move?.sourceClaim?.uid && !move.released;
  const isGoal = (claim: ClaimSeen) => claim.name === move?.targetClaim.name;
  return seen.filter(
    (claim) => !claim.deleting && claim.uid !== guest?.claimUid && !isCurrent(claim) && !isLeft(claim) && !isGoal(claim),
  );
}

/** What status.claim says once a move is known to have arrived: the claim that the guest runs in now. Pure. */
export function arrivedClaim(recorded: ClaimRecord | undefined, move: ActiveMove | undefined): ClaimRecord | undefined {
  if (move?.inPlace === true) return recorded;
  if (recorded?.uid === undefined || move?.state !== "Done" || recorded.uid !== move.sourceClaim?.uid) return recorded;
  const { name, uid } = move.targetClaim;
  return uid === undefined ? recorded : { name, uid, node: move.targetNode, serial: recorded.serial + 1, countsDisks: true };
}

const wait = (reason: string, message: string, retryAfterMs?: number): ClaimStep => ({
  do: "wait",
  reason,
  message,
  retryAfterMs,
});

/** A claim into which no guest was ever started: its uid never stood in the status, so no agent has been told of it. */
function planUnused(facts: ClaimFacts, serial: number): ClaimPlan {
  const name = claimName(facts.instance.name, facts.instance.uid, serial);
  const claim = facts.seen.find((one) => one.name === name);
  const record = { name, serial };
  if (facts.power === "Stopped") {
    if (claim === undefined) return { step: { do: "nothing" }, record: facts.recorded && record };
    if (!claim.deleting) return { step: { do: "delete", claim }, record };
    return { step: wait("ClaimEnding", `waiting for its claim ${name} to end`), record };
  }
  if (claim === undefined) return { step: { do: "create", serial }, record };
  if (claim.deleting) return { step: wait("ClaimDeleted", `its claim ${name} is being deleted; a new one follows`), record };
  if (claim.ended !== undefined) {
    const left = claim.createdAt + REFUSED_RETRY_MS - facts.now;
    if (left <= 0) return { step: { do: "delete", claim }, record };
    const where = claim.node === undefined ? "it" : `node ${claim.node}`;
    return {
      step: wait("ClaimRefused", `${where} refused the claim ${name} (${claim.ended.reason}): ${claim.ended.message}`, left),
      record,
    };
  }
  if (claim.node === undefined) return { step: { do: "keep", claim }, record };
  return { step: { do: "keep", claim }, record: { ...record, uid: claim.uid, node: claim.node } };
}

/** A claim that an agent was told of. It is let go only once nothing can run in it. */
function planUsed(facts: ClaimFacts, recorded: ClaimRecord & { uid: string }): ClaimPlan {
  const { name, serial, node } = recorded;
  const claim = facts.seen.find(({ uid }) => uid === recorded.uid);
  const over = provenOver(recorded.uid, facts.guest, facts.node);
  const agent = `the agent of node ${node ?? "(unknown)"}`;
  const keep = (step: ClaimStep): ClaimPlan => ({ step, record: recorded });

  if (claim === undefined) {
    if (over) return planUnused(facts, serial + 1);
    return keep(wait("ClaimLost", `its claim ${name} is gone; waiting for ${agent} to say that its guest has stopped`));
  }
  if (claim.ended !== undefined && !claim.deleting) {
    if (over) return keep({ do: "delete", claim });
    const why = `its claim ${name} has ended (${claim.ended.reason}): ${claim.ended.message}`;
    return keep(wait("ClaimEnded", `${why}; waiting for ${agent} to say that its guest has stopped`));
  }
  if (claim.deleting) {
    const [reason, why] =
      facts.power === "Running"
        ? ["ClaimDeleted", "is being deleted from outside; its guest is shut down"]
        : ["ClaimEnding", "is ending"];
    return keep(wait(reason, `its claim ${name} ${why}`));
  }
  if (facts.power === "Running") return keep({ do: "keep", claim });
  return keep(over ? { do: "delete", claim } : wait("ShuttingDown", `waiting for ${agent} to shut its guest down`));
}

/**
 * The next step towards the claim that an instance should have, and what status.claim should say. Pure.
 * A claim of which an agent was told (its uid stands in the status) is never replaced, nor deleted, before it is proven that nothing
 * runs in it: a missing pod, a silent node or an empty cache prove nothing.
 */
export function planClaim(facts: ClaimFacts): ClaimPlan {
  const { move } = facts;
  const recorded = arrivedClaim(facts.recorded, move);
  if (recorded?.uid === undefined) {
    const unused = planUnused(facts, recorded?.serial ?? 1);
    if (move?.cold !== true || unused.step.do !== "create") return unused;
    // Its disks are on their way: it starts where they are then.
    return { ...unused, step: wait("Migrating", `waiting for the end of the Migration ${move.name}`) };
  }
  const plan = planUsed(facts, { ...recorded, uid: recorded.uid });
  // Which copy lives is not for this plan to say.
  if (move === undefined || !isMoving(move) || (plan.step.do !== "create" && plan.step.do !== "delete")) return plan;
  return { step: wait("Migrating", `waiting for the end of the Migration ${move.name}`), record: recorded };
}
