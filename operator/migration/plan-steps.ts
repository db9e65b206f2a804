/** Pieces that every stage of a move is planned from. */
import { findCondition } from "../../kube/index.ts";
import { formatDuration } from "../../crds/duration.ts";
import type { NodeSeen, Problem } from "../instance/facts.ts";
import type { EndPhase } from "./attempt.ts";
import { isUnwanted } from "./attempt.ts";
import type { NodeLife } from "./handover.ts";
import type { Cause, MoveFacts, MovePlan } from "./plan.ts";

/** What is known of a node, in the words of the handover. */
export const lifeOf = ({ state }: NodeSeen): NodeLife =>
  state === "Answering" ? "alive" : state === "Silent" ? "silent" : "dead";

/** A claim in which nothing ever ran, or nothing does any more, need not be given time. */
const GRACE_SECONDS = 1;
/** A claim that is being deleted ends within a second or two; a node that has other sorrows is not waited for. */
const ENDING_MS = 30_000;

/** Waits for this, at most for so long; then `late` says what follows. */
export function waitFor(
  facts: MoveFacts,
  { reason, message }: Problem,
  limit?: { forMs: number; late: (problem: Problem) => MovePlan },
): MovePlan {
  const waited = facts.lasted("wait", reason);
  if (limit === undefined) return { step: { do: "wait" }, reason, message };
  if (waited >= limit.forMs) return limit.late({ reason, message: `${message}; given up after ${formatDuration(limit.forMs)}` });
  return { step: { do: "wait", afterMs: limit.forMs - waited + 1 }, reason, message };
}

/** It is over: the target's claim first, then the last word. */
export function finish(facts: MoveFacts, end: EndPhase, { reason, message }: Problem): MovePlan {
  const { claim, target } = facts;
  if (claim !== undefined && end !== "Succeeded") {
    // Nobody will ever end a pod of a node that is gone for good.
    const graceSeconds = target.state === "Gone" ? 0 : GRACE_SECONDS;
    if (!claim.deleting) return { step: { do: "delete-claim", claim, graceSeconds }, reason, message };
    const left = ENDING_MS - facts.lasted("claim-ending", claim.uid);
    if (target.state === "Answering" && left > 0) return { step: { do: "wait", afterMs: left + 1 }, reason, message };
  }
  return {
    step: { do: "note" },
    reason,
    message,
    end,
    set: { endedAt: new Date(facts.now).toISOString() },
    progressing: { status: "False", reason, message },
  };
}

/** Why the present attempt was given up, as it was noted at that moment. */
export function notedCause({ migration }: MoveFacts): Problem | undefined {
  const progressing = findCondition(migration.status?.conditions, "Progressing");
  return progressing?.status === "False" ? { reason: progressing.reason, message: progressing.message } : undefined;
}

/** Whether it was the user who wanted no more of it, or of the guest. */
const isWish = ({ reason }: Problem): boolean => ["Cancelled", "InstanceStopped", "InstanceDeleted"].includes(reason);

/** After an attempt that came to nothing: another one, if what went wrong can pass, else the end. */
export function afterFailure(facts: MoveFacts, cause: Cause): MovePlan {
  const { migration, settings } = facts;
  if (isUnwanted(migration)) return finish(facts, "Cancelled", { reason: "Cancelled", message: cancelled(cause) });
  if (isWish(cause)) return finish(facts, "Cancelled", cause);
  const retries = migration.status?.retries ?? 0;
  if (!cause.retryable) return finish(facts, "Failed", cause);
  if (retries >= settings.retries) {
    const times = retries === 0 ? "" : ` (the last of ${retries + 1} attempts)`;
    return finish(facts, "Failed", { reason: cause.reason, message: `${cause.message}${times}` });
  }
  return {
    step: { do: "note" },
    reason: "Retrying",
    message: `attempt ${retries + 1} of ${settings.retries + 1} failed: ${cause.message}`,
    set: { retries: retries + 1, targetClaim: undefined, targetNode: undefined },
    progressing: { status: "False", reason: cause.reason, message: cause.message },
  };
}

const cancelled = ({ reason, message }: Problem): string =>
  reason === "Cancelled" ? message : `it was cancelled; before that it had failed: ${message}`;
