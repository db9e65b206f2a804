/** A move that is decided: the guest has arrived, or the attempt was given up; what is left is cleared away. */
import type { Handover, MigrationSource, MigrationTarget } from "../../crds/migration.ts";
import type { Problem } from "../instance/facts.ts";
import { isUnwanted, sourceOf, targetOf } from "./attempt.ts";
import { isCold } from "./cold.ts";
import { decideOperator, type OperatorDecision } from "./handover.ts";
import { changesPool, isLocal, wayOf } from "./local.ts";
import type { Cause, MoveFacts, MovePlan } from "./plan.ts";
import { afterFailure, finish, lifeOf, notedCause, waitFor } from "./plan-steps.ts";
import { PASSING } from "./plan-under-way.ts";

/** What a silent target holds cannot run any more, and is cleared away when it comes back. */
export const SILENT_TARGET_MS = 2 * 60_000;

const decide = ({ migration, source, target }: MoveFacts, record: Handover): OperatorDecision =>
  decideOperator({
    record,
    giveUp: false,
    retry: false,
    source: lifeOf(source),
    target: lifeOf(target),
    sourceSaid: migration.status?.source,
    targetSaid: migration.status?.target,
    keep: undefined,
  });

/** What the user is told of a move that came to a good end. */
function arrived({ migration }: MoveFacts): Problem {
  const { sourceNode = "", targetNode = "" } = migration.status ?? {};
  const pauseMs = sourceOf(migration)?.pauseMs;
  const pause = pauseMs === undefined ? "" : `, guest paused ${Math.round(pauseMs)} ms`;
  const message = isLocal(migration.status) ? `moved ${wayOf(migration)}` : `moved from ${sourceNode} to ${targetNode}${pause}`;
  return isUnwanted(migration)
    ? { reason: "TooLate", message: `${message}; it was cancelled too late` }
    : { reason: "Moved", message };
}

/** The guest runs at the target. */
export function planDone(facts: MoveFacts, record: Handover): MovePlan {
  const { migration, instance, claim, target, source } = facts;
  const { sourceNode = "", targetNode = "", targetClaim, instanceUid } = migration.status ?? {};
  const cold = isCold(migration);
  const words = (message: string, reason = "Releasing") => ({
    reason,
    message: `${cold ? "its disks are" : "the guest runs"} on node ${targetNode}; ${message}`,
  });
  const lives = instance !== undefined && instance.metadata.uid === instanceUid;
  const isTold = isLocal(migration.status)
    ? instance !== undefined && !changesPool(migration, instance)
    : instance?.status?.nodeName === targetNode || (!cold && instance?.status?.claim?.uid === targetClaim?.uid);
  if (lives && !isTold) return waitFor(facts, words("the instance is told", "Arriving"));
  if (!cold && claim?.labelled === true && !claim.deleting)
    return { step: { do: "take-label-off", claim }, ...words("the instance is told", "Arriving") };
  if (decide(facts, record).do !== "settled") {
    const silent = source.state === "Silent" ? ` (${source.message})` : "";
    return waitFor(facts, words(`node ${sourceNode} clears away what it has left there${silent}`));
  }
  if (cold) {
    // Nothing ever ran in it: from here on the node itself takes the disks' room off what it offers.
    if (claim === undefined || claim.deleting) return finish(facts, "Succeeded", arrived(facts));
    return { step: { do: "delete-claim", claim, graceSeconds: 1 }, ...words("its claim there is let go") };
  }
  const told = instance?.status?.guest;
  const ofSource = told?.claimUid === undefined || told.claimUid === migration.status?.sourceClaim?.uid;
  const isOldNews = ofSource && told?.state !== "Released";
  if (lives && isOldNews && lifeOf(target) !== "dead") {
    const silent = target.state === "Silent" ? ` (${target.message})` : "";
    return waitFor(facts, words(`its agent there takes it up${silent}`, "Arriving"));
  }
  return finish(facts, "Succeeded", arrived(facts));
}

/** What an end says that only follows the other. */
const FOLLOWS: ReadonlySet<string> = new Set(["SourceGaveUp", "TargetGaveUp"]);
/** What an end says that only follows the other, or the record. */
const FOLLOWED: ReadonlySet<string> = new Set([...FOLLOWS, "Cancelled"]);

/** What both ends say of why it is over, the target first. */
function toldCauses({ migration }: MoveFacts): Cause[] {
  const said: (MigrationSource | MigrationTarget | undefined)[] = [targetOf(migration), sourceOf(migration)];
  return said.flatMap((one) => {
    if (one?.reason === undefined || (one.state !== "GivenUp" && one.state !== "Released")) return [];
    return [{ reason: one.reason, message: one.message ?? "the agents say no more", retryable: one.retryable === true }];
  });
}

/** Which of the two ends says why: the one that gave up of itself, for the other only follows. */
function firstOf(told: readonly Cause[]): Cause | undefined {
  const own = told.filter(({ reason }) => !FOLLOWED.has(reason));
  return own.find(({ retryable }) => !retryable) ?? own[0] ?? told[0];
}

/** The cause that was noted with the decision, or what the agents say. */
export function causeOf(facts: MoveFacts): Cause | undefined {
  const told = toldCauses(facts);
  const said = firstOf(told);
  const noted = notedCause(facts);
  // Who only followed may have spoken first; whoever gave up of itself says whether it can pass.
  if (noted === undefined || (said !== undefined && FOLLOWS.has(noted.reason))) return said;
  // The other end may have come to a reason of its own since: each is asked only about what it said itself.
  const same = told.find(({ reason }) => reason === noted.reason);
  return { ...noted, retryable: same?.retryable ?? PASSING.has(noted.reason) };
}

/** What nobody knows may pass; attempts are counted. */
export const UNKNOWN: Cause = { reason: "GivenUp", message: "the agents gave it up, and do not say why", retryable: true };

/** Notes the cause while it is fresh: what the agents say next speaks of something else. */
export const freshly = (facts: MoveFacts, cause: Cause | undefined): Pick<MovePlan, "progressing"> =>
  cause === undefined || FOLLOWS.has(cause.reason) || notedCause(facts) !== undefined
    ? {}
    : { progressing: { status: "False", reason: cause.reason, message: cause.message } };

/** The attempt is over, and the guest runs on at the source. */
export function planGivenUp(facts: MoveFacts, record: Handover): MovePlan {
  const { migration, source, target } = facts;
  const cause = causeOf(facts);
  const why = cause ?? UNKNOWN;
  const noted = freshly(facts, cause);
  if (decide(facts, record).do === "settled") return afterFailure(facts, why);

  const { sourceNode = "", targetNode = "" } = migration.status ?? {};
  const said = sourceOf(migration)?.state;
  const sourceThrough = lifeOf(source) === "dead" || said === "GivenUp" || said === "Released";
  if (sourceThrough && target.state === "Silent" && facts.lasted("target-silent", "target-silent") >= SILENT_TARGET_MS) {
    const message = `${why.message}; node ${targetNode} does not answer, and clears away what it still has of the move when it does`;
    return afterFailure(facts, { ...why, message, retryable: false });
  }
  if (!(sourceThrough && target.state === "Silent")) facts.lasted("target-silent", undefined);
  const waitsFor = sourceThrough ? { node: targetNode, seen: target } : { node: sourceNode, seen: source };
  const silent = waitsFor.seen.state === "Silent" ? ` (${waitsFor.seen.message})` : "";
  const message = `it is given up: ${why.message}; waits until node ${waitsFor.node} has cleared it away${silent}`;
  const afterMs = sourceThrough && target.state === "Silent" ? SILENT_TARGET_MS : undefined;
  return { step: { do: "wait", afterMs }, reason: "GivingUp", message, ...noted };
}
