/** What follows when a claim is asked to go. Pure: the webhook, the drain's controller and the instance's condition all ask here. */
import type { Instance } from "../../crds/instance.ts";
import type { Migration } from "../../crds/migration.ts";
import { findCondition } from "../../kube/index.ts";
import type { NodeSeen } from "../instance/facts.ts";
import { failedMoves, failureWords, isUnderWay, isUpdating, moveProgress, moveWords, sinceEndMs } from "./moves.ts";
import type { Asked } from "./notes.ts";

export interface DrainFacts {
  instance: Instance;
  /** The claim in which the instance lives now. */
  claim: { uid: string; node?: string | undefined; deleting: boolean };
  asked: Asked;
  /** All Migrations of the instance. */
  moves: readonly Migration[];
  /** The claim's node. */
  node: NodeSeen;
  /** ms since 1970 */
  now: number;
  /** How long the claim may be asked before the refusal says what a person can do. */
  deadlineMs: number;
}

export type DrainStep =
  | { do: "move"; failed: readonly Migration[] }
  /** The claim is deleted: its guest is shut down within the grace period. */
  | { do: "stop" }
  | { do: "wait" };

export interface DrainPlan {
  step: DrainStep;
  /** CamelCase */
  reason: string;
  /** Follows "instance web ". */
  message: string;
  /** How far it is, in figures that change all the time. */
  progress?: string;
  /** Nothing happens before somebody does something. */
  stuck: boolean;
  overdue: boolean;
  /** When time alone may change the plan, ms from now. */
  recheckMs?: number;
}

/** Whoever has not asked for so long does not wait any more: nothing new is begun. `kubectl drain` asks every 5 s. */
export const ASKING_MS = 60_000;
const RETRY_FIRST_MS = 10_000;
const RETRY_MOST_MS = 300_000;

/** Halted, but alive: its memory would be lost. */
const HALTED = new Set(["DiskError", "InternalError"]);

interface Outcome {
  step?: DrainStep;
  reason: string;
  message: string;
  progress?: string;
  stuck?: boolean;
  recheckMs?: number;
}

const stop = (reason: string, message: string): Outcome => ({ step: { do: "stop" }, reason, message });

const retryMs = (failures: number): number => Math.min(RETRY_MOST_MS, RETRY_FIRST_MS * 2 ** (failures - 1));

function moveIt({ instance, claim, moves, now }: DrainFacts): Outcome {
  const migratable = findCondition(instance.status?.conditions, "Migratable");
  if (migratable?.status === "False") {
    return { reason: "NotMigratable", message: `cannot be moved while it runs: ${migratable.message}`, stuck: true };
  }
  const failed = failedMoves(moves, claim.uid);
  const [last] = failed;
  if (last === undefined) return { step: { do: "move", failed }, reason: "Moving", message: "is moved to another node first" };
  const waitMs = retryMs(failed.length) - sinceEndMs(last, now);
  const message = `could not be moved to another node yet: ${failureWords(last)}; it is tried again`;
  if (waitMs > 0) return { reason: "MoveFailed", message, stuck: true, recheckMs: waitMs };
  return { step: { do: "move", failed }, reason: "MoveFailed", message, stuck: true };
}

/** What LiveMigrate means for a guest in this state. */
function live(facts: DrainFacts): Outcome {
  const { instance, claim, node } = facts;
  const guest = instance.status?.guest;
  const where = `node ${claim.node ?? ""}`;
  if (node.state === "Silent" || node.state === "Fenced")
    return { reason: node.reason, message: `cannot be moved now: ${node.message}`, stuck: true };
  if (guest === undefined || guest.claimUid !== claim.uid) {
    return { reason: "WaitingForGuest", message: `is about to start on ${where}; it is moved once it runs` };
  }
  switch (guest.state) {
    case "Preparing":
      // Without a reason it makes progress; with one something is missing, and nothing has run yet.
      if (guest.reason === undefined) {
        return { reason: "WaitingForGuest", message: `is made ready on ${where}; it is moved once it runs` };
      }
      return stop("NotStarted", `has not started (${guest.reason}: ${guest.message ?? ""}); its place on ${where} is given up`);
    case "Starting":
    case "Stopping":
      return { reason: "WaitingForGuest", message: `is ${guest.state === "Starting" ? "starting" : "stopping"} on ${where}` };
    case "Stopped":
    case "Failed":
    case "Released":
      if (!HALTED.has(guest.reason ?? "")) return stop("NotRunning", `does not run; its place on ${where} is given up`);
      return { reason: "GuestHalted", message: `cannot be moved: ${guest.message ?? guest.reason ?? ""}`, stuck: true };
    case "Running":
    default:
      return moveIt(facts);
  }
}

function outcome(facts: DrainFacts): Outcome {
  const { instance, claim, moves } = facts;
  const { spec, metadata } = instance;
  if (metadata.deletionTimestamp !== undefined) return { reason: "Deleting", message: "is being deleted" };
  if (spec.power === "Stopped") return { reason: "PoweringOff", message: "is being stopped" };
  if (claim.deleting) return { reason: "Stopping", message: "is being shut down" };
  const update = moves.find(isUpdating);
  if (update !== undefined) {
    const message = `has its QEMU replaced just now, by Migration ${update.metadata.name}; its eviction goes on after that`;
    return { reason: "Updating", message };
  }
  const move = moves.find(isUnderWay);
  if (move !== undefined) {
    const waits = (move.status?.phase ?? "Pending") === "Pending";
    const message = `is moved to another node first: ${moveWords(move)}`;
    return { reason: waits ? "MoveWaits" : "Moving", message, progress: moveProgress(move) };
  }
  if (spec.onDrain === "Refuse") {
    return { reason: "OnDrainRefuse", message: "stays where it is, as its spec.onDrain says: Refuse", stuck: true };
  }
  if (spec.onDrain === "Stop") return stop("Stopping", "is shut down first, as its spec.onDrain says: Stop");
  return live(facts);
}

const minutes = (ms: number): string => (ms < 120_000 ? `${Math.round(ms / 1000)} s` : `${Math.round(ms / 60_000)} min`);

const ADVICE = "stop it (spec.power: Stopped), or have it shut down (spec.onDrain: Stop)";

/**
 * What follows; undefined when nobody asks any more and nothing is under way. A step is planned only while somebody asks.
 * What has begun goes on, whoever asks.
 */
export function planDrain(facts: DrainFacts): DrainPlan | undefined {
  const { asked, now, deadlineMs, claim, moves } = facts;
  const askedMs = now - asked.last;
  const isAsking = askedMs < ASKING_MS;
  const underWay = claim.deleting || moves.some(isUnderWay);
  if (!isAsking && !underWay) return undefined;
  const found = outcome(facts);
  const { reason, progress, stuck = false } = found;
  const step: DrainStep = isAsking && found.step !== undefined ? found.step : { do: "wait" };
  const waitedMs = asked.last - asked.first;
  const overdue = waitedMs >= deadlineMs;
  const late = `; it has been asked to leave for ${minutes(waitedMs)}, longer than drain.deadline: ${ADVICE}`;
  const recheckMs = Math.min(found.recheckMs ?? ASKING_MS, isAsking ? ASKING_MS - askedMs : ASKING_MS);
  return {
    step,
    reason,
    message: `${found.message}${overdue ? late : stuck && step.do === "wait" && found.recheckMs === undefined ? hint(reason) : ""}`,
    ...(progress === undefined || progress === "" ? {} : { progress }),
    stuck,
    overdue,
    recheckMs: Math.max(1000, recheckMs),
  };
}

/** What a person can do at once, where waiting helps nobody. */
const hint = (reason: string): string => (reason === "OnDrainRefuse" || reason === "NotMigratable" ? `; ${ADVICE}` : "");
