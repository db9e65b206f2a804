/** The status of a Rollout, and what a change of it is worth telling. Pure. */
import type { Condition } from "../../crds/schema.ts";
import type { Rollout, RolloutStatus } from "../../crds/rollout.ts";
import { setCondition } from "../../kube/index.ts";
import type { RolloutFacts, RolloutPlan } from "./plan.ts";

type Verdict = Pick<Condition, "status" | "reason" | "message">;

function verdicts({ phase, reason, message }: RolloutPlan): [string, Verdict][] {
  const stopped = phase === "Stopped" && reason === "UpdateFailed";
  return [
    ["Complete", { status: phase === "Complete" ? "True" : "False", reason, message }],
    [
      "Stopped",
      stopped
        ? { status: "True", reason, message }
        : { status: "False", reason: "NotStopped", message: "no update has failed since it last began to go on" },
    ],
  ];
}

/** All of its status. Pure: the same facts and plan give the same status. */
export function rolloutStatus(facts: RolloutFacts, plan: RolloutPlan): RolloutStatus {
  const { rollout, version, now } = facts;
  const before = rollout.status ?? {};
  const observedGeneration = rollout.metadata.generation;
  // Of one whose place another has taken the last figures stay.
  const counts = version === undefined ? before : facts;
  const { updated = 0, total = 0 } = counts;
  const conditions = verdicts(plan).reduce(
    (list, [type, verdict]) => setCondition(list, { type, ...verdict, observedGeneration }, new Date(now)),
    before.conditions ?? [],
  );
  const { phase, reason, message, failed, since, resumedAt } = plan;
  return {
    observedGeneration,
    phase,
    reason,
    message,
    progress: `${updated}/${total}`,
    updated,
    total,
    failed,
    runtime: version ?? before.runtime,
    ...(resumedAt === undefined ? {} : { resumedAt }),
    ...(since === undefined ? {} : { since }),
    conditions,
  };
}

/** Whether somebody waits for this change, and it is not just a figure that moved. */
export const isAwaited = (have: RolloutStatus | undefined, want: RolloutStatus): boolean =>
  have?.phase !== want.phase ||
  have?.reason !== want.reason ||
  have?.since !== want.since ||
  have?.resumedAt !== want.resumedAt ||
  have?.observedGeneration !== want.observedGeneration;

export interface RolloutEvent {
  type: "Normal" | "Warning";
  reason: string;
  note: string;
}

/** The event that tells of this change; undefined when it is not worth one: a new cluster's first runtime, or one more of many. */
export function rolloutEvent(before: Rollout["status"], after: RolloutStatus): RolloutEvent | undefined {
  const { phase = "Waiting", reason = phase, message: note = "" } = after;
  if (before?.phase === phase && before.reason === reason) return undefined;
  if (before?.phase === undefined && after.total === 0) return undefined;
  return { type: phase === "Stopped" && reason === "UpdateFailed" ? "Warning" : "Normal", reason, note };
}
