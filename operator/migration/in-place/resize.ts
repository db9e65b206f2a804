/** Gives a claim another memory limit while its guest runs. */
import { OPERATOR_MANAGER } from "../../../crds/names.ts";
import { ApiError, resources } from "../../../kube/index.ts";
import { HOLDER, type ClaimSeen, type Problem } from "../../instance/facts.ts";
import type { MoveScope } from "../scope.ts";

/** Undefined for what no user can mend: that is to be thrown on. */
export function refusedResize(error: unknown): Problem | undefined {
  if (!(error instanceof ApiError) || ![400, 403, 404, 405, 422].includes(error.code)) return undefined;
  const hint = error.code === 404 || error.code === 405 ? "; Kubernetes 1.33 and newer can resize a pod in place" : "";
  return { reason: "ResizeRefused", message: `the API server refuses it: ${error.message}${hint}` };
}

/** Requests and limit alike, of this very pod. May be repeated. What the API server says against it stands in `scope.refused`. */
export async function resizeClaim(scope: MoveScope, claim: ClaimSeen, toBytes: number): Promise<void> {
  const { ctx, migration } = scope;
  const key = { namespace: migration.metadata.namespace, name: claim.name };
  const pod = ctx.recentClaims.get(key);
  // a webhook may have put a container before it
  const index = pod?.spec.containers.findIndex(({ name }) => name === HOLDER) ?? -1;
  if (index < 0) throw new Error(`the claim ${claim.name} is not in the cache, or has no container ${HOLDER}`);
  const at = `/spec/containers/${index}/resources`;
  const value = String(toBytes);
  const patch = [
    { op: "test" as const, path: "/metadata/uid", value: claim.uid },
    { op: "test" as const, path: `/spec/containers/${index}/name`, value: HOLDER },
    { op: "replace" as const, path: `${at}/requests/memory`, value },
    { op: "replace" as const, path: `${at}/limits/memory`, value },
  ];
  try {
    const options = { subresource: "resize", manager: OPERATOR_MANAGER };
    ctx.recentClaims.put(await ctx.client.patchJson(resources.pods, key, patch, options));
    scope.refused = undefined;
    ctx.log.info({ migration: scope.key, claim: claim.name, toBytes }, "resized a claim");
  } catch (error) {
    scope.refused = refusedResize(error);
    if (scope.refused === undefined) throw error;
  }
}
