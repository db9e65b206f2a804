/** The story of one Instance. */
import { INSTANCE_FINALIZER } from "../../crds/names.ts";
import { instances } from "../../crds/resources.ts";
import { ensureFinalizer, type ObjectKey, type Requeue } from "../../kube/index.ts";
import { RECENT_MS } from "../recent.ts";
import { ensureClaim } from "./ensure-claim.ts";
import { ensurePorts } from "./ports.ts";
import { assignAddresses, resolvePool } from "./references.ts";
import { release } from "./release.ts";
import { InstanceScope, type InstanceContext } from "./scope.ts";
import { writeStatus } from "./write-status.ts";

/** Sets the finalizer before anything else is made, so that all of it will be released. */
async function holdOn(scope: InstanceScope): Promise<void> {
  const { ctx, instance } = scope;
  if (instance.metadata.finalizers?.includes(INSTANCE_FINALIZER) === true) return;
  scope.instance = await ensureFinalizer(ctx.client, instances, instance, INSTANCE_FINALIZER);
  ctx.recentInstances.put(scope.instance);
}

/** Keeps one Instance as its spec says. Level-triggered: reads the world anew each time, and may be killed at any line. */
export async function reconcileInstance(key: ObjectKey, ctx: InstanceContext): Promise<Requeue | void> {
  const instance = ctx.recentInstances.get(key);
  if (instance === undefined) return undefined;
  const scope = new InstanceScope(instance, ctx);
  if (instance.metadata.deletionTimestamp !== undefined) {
    await release(scope);
    return scope.requeue;
  }
  await holdOn(scope);
  resolvePool(scope);
  assignAddresses(scope);
  await ensureClaim(scope);
  await writeStatus(scope);
  // Only now may ports be made: their addresses and their node stand in the API.
  await ensurePorts(scope);
  await writeStatus(scope);
  // What was written and never shows up in the cache (made and deleted while a watch was broken) is looked at once more.
  if (scope.wroteUnseen) scope.retryAfter(RECENT_MS + 1000);
  return scope.requeue;
}
