/** The instance's ports in OVN, made once its place and its addresses stand in the API. */
import { sameStatus } from "../../kube/index.ts";
import { chassisOf } from "../migration/active.ts";
import type { InstanceScope } from "./scope.ts";

/** OVN that comes back tells so; this is for what it does not tell. */
const RETRY_MS = 10_000;

/** Does nothing before the status says where the instance is: OVN must be able to be filled again from the API alone. */
export async function ensurePorts(scope: InstanceScope): Promise<void> {
  const { instance, nics, ctx } = scope;
  const written = instance.status;
  if (written?.nodeName === undefined || nics.length === 0 || !sameStatus(written.nics, nics)) return;
  const chassis = chassisOf(scope.move, written.nodeName);
  const outcome = await ctx.network.ports.ensurePorts(instance, { chassis, nics });
  if ("ready" in outcome) return;
  scope.problems.network = outcome.problem;
  scope.retryAfter(RETRY_MS);
}
