/** The claim at the target: made, let go, and made an ordinary one. */
import { MIGRATION_LABEL, OPERATOR_MANAGER } from "../../crds/names.ts";
import { ApiError, resources } from "../../kube/index.ts";
import { ensureBudget } from "../instance/budget.ts";
import { targetClaimPod } from "../instance/claim.ts";
import type { ClaimSeen } from "../instance/facts.ts";
import { isSharedPool, labelsOfPools } from "../instance/shared.ts";
import { claimNameOf } from "./attempt.ts";
import { isCold } from "./cold.ts";
import { staysOnNode } from "./local.ts";
import { refusedClaim } from "./refusal.ts";
import { createBeyondQuota } from "./surge.ts";
import { diskPlan, unsuitableNodes } from "./preflight.ts";
import type { MoveScope } from "./scope.ts";

/** Makes the claim of the present attempt. May be repeated: its name is the same each time. */
export async function createTargetClaim(scope: MoveScope): Promise<void> {
  const { ctx, migration, instance } = scope;
  if (instance === undefined) return;
  const { namespace = "", name: migrationName } = migration.metadata;
  const { node, nodeSelector } = migration.spec.target ?? {};
  const name = claimNameOf(migration);
  const stays = staysOnNode(migration, instance, scope.nodesWith);
  const isShared = (pool: string): boolean => isSharedPool(pool, ctx.pools);
  const disks = diskPlan(migration, instance, isShared, stays);
  const place = {
    name,
    migration: migrationName,
    sourceNode: instance.status?.nodeName ?? "",
    nodeName: stays ? instance.status?.nodeName : node,
    staying:
      stays && !isCold(migration)
        ? disks.filter(({ copy, targetPool }) => !copy && !isShared(targetPool)).map((disk) => disk.name)
        : [],
    nodeSelector,
    unsuitable: [...new Set([...unsuitableNodes(migration, instance, ctx.hosts.list()), ...ctx.heartbeats.silentNodes()])],
    disks,
    idle: isCold(migration),
    poolLabels: labelsOfPools(
      disks.filter(({ copy }) => !copy).map(({ targetPool }) => targetPool),
      ctx.pools,
    ),
  };
  try {
    await ensureBudget(namespace, ctx);
    const pod = targetClaimPod(instance, place, ctx.settings);
    const made = await createBeyondQuota(pod, ctx, { beyond: migration.spec.priority === "Drain" });
    ctx.recentClaims.put(made);
    scope.refused = undefined;
    ctx.log.info({ migration: scope.key, claim: name }, "made a claim at the target");
  } catch (error) {
    if (error instanceof ApiError && error.reason === "AlreadyExists") return adopt(scope, name);
    scope.refused = refusedClaim(error, name);
    if (scope.refused === undefined) throw error;
  }
}

/** The pod of that name, if this Migration made it. */
async function adopt(scope: MoveScope, name: string): Promise<void> {
  const { ctx, migration } = scope;
  const pod = await ctx.client.get(resources.pods, { namespace: migration.metadata.namespace, name });
  if (pod?.metadata.labels?.[MIGRATION_LABEL] === migration.metadata.name) ctx.recentClaims.put(pod);
  else if (pod !== undefined)
    scope.refused = {
      reason: "ClaimNameTaken",
      message: `there is a pod ${name} that is not of this Migration; delete it, or make another Migration`,
    };
}

/** Deletes this very pod, no later one of its name. */
export async function deleteTargetClaim(scope: MoveScope, claim: ClaimSeen, gracePeriodSeconds: number): Promise<void> {
  const { ctx, migration } = scope;
  const key = { namespace: migration.metadata.namespace, name: claim.name };
  await ctx.client.delete(resources.pods, key, { uid: claim.uid, gracePeriodSeconds });
  ctx.log.info({ migration: scope.key, claim: claim.name }, "let a claim at the target go");
  const pod = ctx.recentClaims.get(key);
  if (pod?.metadata.uid !== claim.uid) return;
  const deletionTimestamp = new Date(ctx.clock.now()).toISOString();
  ctx.recentClaims.put({ ...pod, metadata: { ...pod.metadata, deletionTimestamp } });
}

/** The guest lives in it: from here on it is a claim as any other. */
export async function takeLabelOff(scope: MoveScope, claim: ClaimSeen): Promise<void> {
  const { ctx, migration } = scope;
  const key = { namespace: migration.metadata.namespace, name: claim.name };
  const patch = { metadata: { uid: claim.uid, labels: { [MIGRATION_LABEL]: null } } };
  ctx.recentClaims.put(await ctx.client.patchMerge(resources.pods, key, patch, { manager: OPERATOR_MANAGER }));
}
