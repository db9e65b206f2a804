/** What a claim pod means to the guest in it. Pure. */
import type { Pod } from "../../kube/index.ts";

/**
 * alive: guests may start in it. deleting: they must be out before `endsAt` (ms since 1970). over: it ended or was evicted.
 * gone: the API server has no such pod. unknown: nobody could be asked; nothing is started and nothing stopped because of it.
 */
export type ClaimState =
  | { state: "alive" }
  | { state: "deleting"; endsAt: number }
  | { state: "over"; why: string }
  | { state: "gone" }
  | { state: "unknown" };

/** The state of the claim with this uid; another pod of the same name is not it. */
export function claimState(pod: Pod | undefined, uid: string): ClaimState {
  if (pod === undefined || pod.metadata.uid !== uid) return { state: "gone" };
  const { deletionTimestamp } = pod.metadata;
  // It is the time at which the grace period ends, not that of the request.
  if (deletionTimestamp !== undefined) return { state: "deleting", endsAt: Date.parse(deletionTimestamp) };
  const phase = pod.status?.phase;
  if (phase === "Failed" || phase === "Succeeded") {
    return { state: "over", why: pod.status?.message ?? pod.status?.reason ?? `the pod is ${phase}` };
  }
  return { state: "alive" };
}
