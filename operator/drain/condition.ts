/** The condition Draining of an instance. Pure. */
import type { Condition } from "../../crds/schema.ts";
import type { DrainPlan } from "./plan.ts";

type Verdict = Pick<Condition, "status" | "reason" | "message">;

/**
 * What it says. An instance that was never asked to leave its node has no such condition; one that was keeps it.
 * @param had the condition that it has now
 */
export function drainingVerdict(plan: DrainPlan | undefined, had: Condition | undefined): Verdict | undefined {
  if (plan !== undefined) {
    const reason = plan.overdue ? "DrainOverdue" : plan.reason;
    return { status: "True", reason, message: `it was asked to leave its node: it ${plan.message}` };
  }
  return had === undefined ? undefined : { status: "False", reason: "NotAsked", message: "nobody asks it to leave its node" };
}
