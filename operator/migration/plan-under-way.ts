/** A move that the agents are at: the operator keeps watch, gives up where it must, and says where it is. */
import { formatDuration } from "../../crds/duration.ts";
import type { Handover, MigrationSource } from "../../crds/migration.ts";
import type { NodeSeen, Problem } from "../instance/facts.ts";
import { isUnwanted, sourceOf, targetOf } from "./attempt.ts";
import { isCold } from "./cold.ts";
import { decideOperator, type OperatorDecision } from "./handover.ts";
import type { Cause, MoveFacts, MovePlan } from "./plan.ts";
import { isLocal, wayOf } from "./local.ts";
import { lifeOf } from "./plan-steps.ts";

const MINUTE = 60_000;
/** An agent that is replaced, or dies and comes back, is silent for less. */
export const SILENT_MS = MINUTE;
/** An agent that answers takes a move up within a second. */
export const TAKE_UP_MS = 2 * MINUTE;
/** The source keeps to policy.timeout itself; this is for one that does not. */
export const TIMEOUT_SLACK_MS = 5 * MINUTE;

/** Whether there is a reason to give up, or when to look again. */
export interface Watch {
  cause?: Cause;
  /** When it is worth another look, though nothing changes. */
  afterMs: number;
}

export const never: Watch = { afterMs: Number.POSITIVE_INFINITY };
export const because = (reason: string, message: string, retryable = false): Watch => ({
  cause: { reason, message, retryable },
  afterMs: 0,
});

/** What nobody wants, or nobody can do any more. */
export function wishes({ migration, instance }: MoveFacts): Watch | undefined {
  if (isUnwanted(migration)) return because("Cancelled", "it was cancelled");
  const { instance: name } = migration.spec;
  if (instance === undefined || instance.metadata.uid !== migration.status?.instanceUid || instance.metadata.deletionTimestamp)
    return because("InstanceDeleted", `instance ${name} was deleted`);
  if (!isCold(migration) && instance.spec.power === "Stopped") return because("InstanceStopped", `instance ${name} was stopped`);
  return undefined;
}

function claims({ claim, sourceClaim, migration }: MoveFacts): Watch | undefined {
  const { targetClaim, sourceClaim: left, targetNode = "", sourceNode = "" } = migration.status ?? {};
  if (claim === undefined || claim.uid !== targetClaim?.uid || claim.deleting || claim.ended !== undefined)
    return because("TargetClaimLost", `its claim ${targetClaim?.name ?? ""} on node ${targetNode} was lost`, true);
  if (isCold(migration)) return undefined;
  if (sourceClaim === undefined || sourceClaim.uid !== left?.uid || sourceClaim.deleting || sourceClaim.ended !== undefined)
    return because("SourceClaimLost", `the guest's claim ${left?.name ?? ""} on node ${sourceNode} was lost`);
  return undefined;
}

/** Gives up once this has lasted too long; until then says when to look again. */
export function deadline(facts: MoveFacts, topic: string, on: boolean, forMs: number, cause: () => Watch): Watch {
  const lasted = facts.lasted(topic, on ? topic : undefined);
  if (!on) return never;
  return lasted >= forMs ? cause() : { afterMs: forMs - lasted + 1 };
}

function silence(facts: MoveFacts, side: "Source" | "Target", seen: NodeSeen): Watch {
  const message = seen.state === "Silent" ? seen.message : "";
  return deadline(facts, `${side}Silent`, seen.state === "Silent", SILENT_MS, () => because(`${side}Silent`, message, true));
}

function notTakenUp(facts: MoveFacts): Watch[] {
  const { migration } = facts;
  const [source, target] = [sourceOf(migration), targetOf(migration)];
  const { sourceNode = "", targetNode = "" } = migration.status ?? {};
  const late = (node: string) => `the agent of node ${node} did not take the move up within ${formatDuration(TAKE_UP_MS)}`;
  return [
    deadline(facts, "TargetIdle", target === undefined, TAKE_UP_MS, () => because("TargetIdle", late(targetNode), true)),
    deadline(facts, "SourceIdle", target?.state === "Ready" && source === undefined, TAKE_UP_MS, () =>
      because("SourceIdle", late(sourceNode), true),
    ),
  ];
}

function tooLong(facts: MoveFacts): Watch {
  const begun = sourceOf(facts.migration) !== undefined;
  const timeoutMs = facts.migration.status?.policy?.timeoutMs ?? Number.POSITIVE_INFINITY;
  return deadline(facts, "Copying", begun, timeoutMs + TIMEOUT_SLACK_MS, () =>
    because("Timeout", `copying took longer than policy.timeout (${formatDuration(timeoutMs)})`),
  );
}

/** Why the operator gives the attempt up, if it does. All of it counts only before the source has been given the right to pause. */
function watch(facts: MoveFacts, record: Handover): Watch {
  const wish = wishes(facts);
  if (wish !== undefined || record.state !== "Copying") return wish ?? never;
  const all = [
    claims(facts) ?? never,
    silence(facts, "Source", facts.source),
    silence(facts, "Target", facts.target),
    ...notTakenUp(facts),
    tooLong(facts),
  ];
  const lost = all.find(({ cause }) => cause !== undefined);
  return lost ?? { afterMs: Math.min(...all.map(({ afterMs }) => afterMs)) };
}

const SAID: Partial<Record<MigrationSource["state"], Problem>> = {
  CopyingDisk: { reason: "CopyingDisk", message: "the disks are being copied" },
  CopyingMemory: { reason: "CopyingMemory", message: "the memory is being copied while the guest runs" },
  SwitchingOver: { reason: "CopyingMemory", message: "the memory is being copied while the guest runs" },
};

const DISKS = { reason: "CopyingDisk", message: "the disks are being copied" };
const SAID_COLD: typeof SAID = { CopyingDisk: DISKS, CopyingMemory: DISKS, SwitchingOver: DISKS };

function copying({ migration }: MoveFacts): Problem {
  const [source, target] = [sourceOf(migration), targetOf(migration)];
  const { sourceNode = "", targetNode = "" } = migration.status ?? {};
  const words = isCold(migration) ? SAID_COLD : SAID;
  const said = source === undefined ? undefined : words[source.state];
  // What the target still waits for keeps the guest from being switched over.
  const lacks = target?.state === "Ready" && target.message !== undefined ? `; node ${targetNode}: ${target.message}` : "";
  if (said !== undefined) return { ...said, message: `${said.message}${lacks}` };
  if (target?.state === "Ready")
    return { reason: "Connecting", message: `node ${targetNode} is ready; node ${sourceNode} connects to it` };
  const why = target?.message === undefined ? "" : `: ${target.message}`;
  return { reason: target?.reason ?? "Preparing", message: `node ${targetNode} prepares for the guest${why}` };
}

function switching(facts: MoveFacts, record: Handover, cause: Cause | undefined): Problem {
  const { targetNode = "" } = facts.migration.status ?? {};
  if (record.state === "Target" && lifeOf(facts.target) === "dead")
    return {
      reason: "WaitingForNode",
      message: `spec.keep decided that the copy on node ${targetNode} lives; it waits for that node to come back`,
    };
  const late = cause === undefined ? "" : `; too late to give it up (${cause.message})`;
  const silent = [facts.source, facts.target].find(({ state }) => state === "Silent");
  const waits = silent === undefined || silent.state !== "Silent" ? "" : `; waits for ${silent.message}`;
  const rest = sourceOf(facts.migration)?.message;
  const where =
    record.state === "Target"
      ? `the guest may run on node ${targetNode} now${rest === undefined ? "" : `: ${rest}`}`
      : wayOf(facts.migration);
  return { reason: cause === undefined ? "SwitchingOver" : "TooLate", message: `it is switched over: ${where}${late}${waits}` };
}

const DIED: Record<"SourceDied" | "TargetDied" | "BothDied", string> = {
  SourceDied:
    "the node that the guest was leaving died at the moment of the switchover, and the target's copy may be older than what the guest last wrote",
  TargetDied: "the node that the guest was going to died at the moment of the switchover, and it may have run there already",
  BothDied: "both nodes died at the moment of the switchover",
};

const decisionOf = (reason: keyof typeof DIED): Problem => ({
  reason,
  message: `${DIED[reason]}: decide which copy shall live by spec.keep: Source or Target (kubectl patch); what the other one wrote is lost`,
});

function causeOf({ migration, target }: MoveFacts, from: Handover, cause: Cause | undefined): Cause {
  if (cause !== undefined) return cause;
  if (from.state !== "Copying")
    return { reason: "Decided", message: "spec.keep decided that the source's copy lives", retryable: false };
  const said = targetOf(migration);
  if (said?.state === "GivenUp")
    return {
      reason: said.reason ?? "TargetGaveUp",
      message: said.message ?? "the target gave up",
      retryable: said.retryable === true,
    };
  const { sourceNode = "", targetNode = "" } = migration.status ?? {};
  if (lifeOf(target) === "dead") return { reason: "TargetDied", message: `node ${targetNode} died`, retryable: true };
  return { reason: "SourceDied", message: `node ${sourceNode} died`, retryable: false };
}

function planWrite(facts: MoveFacts, decision: OperatorDecision & { do: "write" }, cause: Cause | undefined): MovePlan {
  const { from, to } = decision;
  const step = { do: "write" as const, from, to };
  if (to.state !== "Source") {
    const message = "spec.keep decided that the target's copy lives, or the target has all of it";
    return { step, reason: "Decided", message };
  }
  const { reason, message } = causeOf(facts, from, cause);
  return { step, reason: "GivingUp", message: `it is given up: ${message}`, progressing: { status: "False", reason, message } };
}

/** Reasons of the operator's own that can pass. A condition has no field for that; these are all that it finds itself. */
export const PASSING: ReadonlySet<string> = new Set([
  "TargetClaimLost",
  "SourceSilent",
  "TargetSilent",
  "TargetIdle",
  "SourceIdle",
  "TargetDied",
  "AgentSilent",
  "AgentIdle",
]);

/** The copy that shall live. Where the instance is deleted none shall, and the one that can be asked is brought to an end. */
function keptCopy({ migration, instance, target }: MoveFacts): "Source" | "Target" | undefined {
  const deleted = instance === undefined || instance.metadata.deletionTimestamp !== undefined;
  if (deleted && lifeOf(target) === "dead") return "Source";
  return migration.spec.keep ?? (deleted ? "Target" : undefined);
}

/** A move whose record says Copying, Handover or Target. */
export function planUnderWay(facts: MoveFacts, record: Handover): MovePlan {
  const { migration, source, target } = facts;
  const { cause, afterMs } = watch(facts, record);
  // Where source and target are one, only their agent knows which of the two volumes is the right one; it waits for its node.
  const settles = isLocal(migration.status) && record.state !== "Copying";
  const decision: OperatorDecision = settles
    ? { do: "wait" }
    : decideOperator({
        record,
        giveUp: cause !== undefined,
        retry: false,
        source: lifeOf(source),
        target: lifeOf(target),
        sourceSaid: migration.status?.source,
        targetSaid: migration.status?.target,
        keep: keptCopy(facts),
      });
  if (decision.do === "write") return planWrite(facts, decision, cause);
  if (decision.do === "needsDecision") {
    const problem = decisionOf(decision.reason);
    return { step: { do: "wait" }, reason: "NeedsDecision", message: problem.message, needsDecision: problem };
  }
  const words = record.state === "Copying" ? copying(facts) : switching(facts, record, cause);
  return { step: { do: "wait", afterMs: Number.isFinite(afterMs) ? afterMs : undefined }, ...words };
}
