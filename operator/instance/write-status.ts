/** Writes the status when it differs, and tells of the transition. */
import { OPERATOR_MANAGER } from "../../crds/names.ts";
import { instances } from "../../crds/resources.ts";
import { sameStatus } from "../../kube/index.ts";
import type { InstanceScope } from "./scope.ts";
import { computeStatus, ownStatus } from "./status.ts";
import { transitionEvent } from "./transitions.ts";

/** Writes nothing when nothing changed; a change that nobody waits for is held back, and the reconcile comes again. */
export async function writeStatus(scope: InstanceScope): Promise<void> {
  const { ctx, instance } = scope;
  const { name, namespace, uid } = instance.metadata;
  const have = ownStatus(instance.status);
  const want = computeStatus(scope.facts());
  if (sameStatus(have, want)) return;
  const waitMs = ctx.pace.holdBack(uid, have, want);
  if (waitMs > 0) {
    scope.retryAfter(waitMs);
    return;
  }
  const metadata = { name, uid, namespace };
  const { apiVersion, kind } = instance;
  const written = await ctx.client.apply(
    instances,
    { apiVersion, kind, metadata, status: want },
    { manager: OPERATOR_MANAGER, subresource: "status" },
  );
  ctx.pace.wrote(uid);
  ctx.recentInstances.put(written);
  scope.instance = written;
  if (have.phase !== want.phase)
    ctx.log.info({ instance: scope.key, from: have.phase, to: want.phase, reason: want.reason }, "phase");
  const event = transitionEvent(have, want);
  if (event !== undefined) ctx.events.event(written, event.type, event.reason, event.action, event.note);
}
