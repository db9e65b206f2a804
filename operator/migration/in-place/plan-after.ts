/** An update that is decided: the guest runs in the new QEMU, or runs on in the old one; what is left is cleared away. */
import type { Handover } from "../../../crds/migration.ts";
import type { Problem } from "../../instance/facts.ts";
import { isUnwanted, sourceOf } from "../attempt.ts";
import { decideOperator, type OperatorDecision } from "../handover.ts";
import type { Cause, MoveFacts, MovePlan } from "../plan.ts";
import { causeOf, freshly, SILENT_TARGET_MS, UNKNOWN } from "../plan-after.ts";
import { afterFailure, finish, lifeOf, waitFor } from "../plan-steps.ts";
import { runningGuest } from "../preflight.ts";
import { planRoom } from "./room.ts";
import { changeText, WAY_OUT } from "./runtimes.ts";

/** What an agent says of a guest is a second old at most; the update does not hang on it. */
const TOLD_MS = 30_000;

function decide({ migration, source }: MoveFacts, record: Handover): OperatorDecision {
  const life = lifeOf(source);
  const { source: sourceSaid, target: targetSaid } = migration.status ?? {};
  return decideOperator({
    record,
    giveUp: false,
    retry: false,
    source: life,
    target: life,
    sourceSaid,
    targetSaid,
    keep: undefined,
  });
}

/** What the user is told of an update that came to a good end. */
function updated({ migration }: MoveFacts): Problem {
  const { runtime, sourceNode = "" } = migration.status ?? {};
  const pauseMs = sourceOf(migration)?.pauseMs;
  const pause = pauseMs === undefined ? "" : `, guest paused ${Math.round(pauseMs)} ms`;
  const message = `QEMU was replaced on node ${sourceNode}${runtime === undefined ? "" : `, ${changeText(runtime)}`}${pause}`;
  return isUnwanted(migration)
    ? { reason: "TooLate", message: `${message}; it was cancelled too late` }
    : { reason: "Updated", message };
}

/**
 * Why the guest did not outlive the update. The record says Done for a new QEMU that died as soon as it ran, for the old one must not run
 * again; a roll-out that took that for an update would go on to the next guest.
 */
function deathOf({ migration, instance }: MoveFacts): Problem | undefined {
  const { instanceUid, guestRestarts = 0, sourceClaim, sourceNode = "" } = migration.status ?? {};
  const guest = instance?.status?.guest;
  if (instance?.metadata.uid !== instanceUid || guest === undefined || guest.claimUid !== sourceClaim?.uid) return undefined;
  const again = (guest.restarts ?? 0) > guestRestarts;
  if (guest.state !== "Failed" && !again) return undefined;
  const why = guest.message === undefined ? "" : `: ${guest.message}`;
  const then = again ? "; it was started again" : "";
  return {
    reason: "GuestEnded",
    message: `the guest ended when the new QEMU on node ${sourceNode} had taken it over${why}${then}`,
  };
}

/** The guest runs in the new QEMU. */
export function planUpdated(facts: MoveFacts, record: Handover): MovePlan {
  const { migration, instance, source } = facts;
  const { sourceNode = "", runtime, instanceUid } = migration.status ?? {};
  const silent = source.state === "Silent" ? ` (${source.message})` : "";
  const words = (message: string) => ({ reason: "Releasing", message: `the guest runs in the new QEMU; ${message}${silent}` });
  if (decide(facts, record).do !== "settled") return waitFor(facts, words(`node ${sourceNode} clears the old one away`));
  const death = deathOf(facts);
  if (death !== undefined) return finish(facts, "Failed", death);
  const guest = instance?.metadata.uid === instanceUid && instance !== undefined ? runningGuest(instance) : undefined;
  const end = finish(facts, "Succeeded", updated(facts));
  if (guest === undefined || guest.runtimeVersion === runtime?.to.version || lifeOf(source) === "dead") return end;
  return waitFor(facts, words(`node ${sourceNode} has yet to say so of the instance`), { forMs: TOLD_MS, late: () => end });
}

/**
 * A claim without room is not helped by another try alone, and what helps is said with it. Nor is a guest that has ended: started again it
 * is in the current runtime, and the update of nothing would succeed.
 */
function lasting(cause: Cause): Cause {
  if (cause.reason === "GuestEnded") return { ...cause, retryable: false };
  if (cause.reason !== "NoRoomInClaim") return cause;
  const isSaid = /move .* or restart/.test(cause.message);
  return { ...cause, message: isSaid ? cause.message : `${cause.message}; ${WAY_OUT}`, retryable: false };
}

/** The attempt is over, and the guest runs on in the old QEMU. */
export function planUpdateGivenUp(facts: MoveFacts, record: Handover): MovePlan {
  const { source, migration } = facts;
  const { sourceNode = "" } = migration.status ?? {};
  const cause = causeOf(facts);
  const why = lasting(cause ?? UNKNOWN);
  if (decide(facts, record).do === "settled")
    return why.reason === "NoRoomInClaim" ? planRoom(facts, why) : afterFailure(facts, why);
  // The old QEMU is the right one, whatever becomes of the new one: nobody need wait for a node that says nothing.
  const isSilent = source.state === "Silent";
  const silentMs = facts.lasted("target-silent", isSilent ? "target-silent" : undefined);
  if (isSilent && silentMs >= SILENT_TARGET_MS) {
    const message = `${why.message}; node ${sourceNode} does not answer, and clears away what it still has of the update when it does`;
    return afterFailure(facts, { ...why, message, retryable: false });
  }
  const silent = isSilent ? ` (${source.message})` : "";
  const message = `it is given up: ${why.message}; waits until node ${sourceNode} has cleared it away${silent}`;
  const afterMs = isSilent ? SILENT_TARGET_MS - silentMs + 1 : undefined;
  return { step: { do: "wait", afterMs }, reason: "GivingUp", message, ...freshly(facts, cause) };
}
