/** The story of one StoragePool: the nodes make it and take it down, here it is only summed up, and kept while it is used. */
import type { HostPool } from "../../crds/host.ts";
import { OPERATOR_MANAGER, POOL_FINALIZER } from "../../crds/names.ts";
import type { PoolStatus, StoragePool } from "../../crds/pool.ts";
import { storagePools } from "../../crds/resources.ts";
import { ensureFinalizer, keyOf, keyText, removeFinalizer, sameStatus, type ObjectKey, type Requeue } from "../../kube/index.ts";
import type { OperatorContext } from "../context.ts";
import { nodeSeen } from "../nodes.ts";
import type { Recent } from "../recent.ts";
import { computePoolStatus, type NodePool } from "./status.ts";

export type PoolContext = Pick<
  OperatorContext,
  "client" | "clock" | "events" | "log" | "pools" | "hosts" | "nodes" | "instances" | "heartbeats"
> & {
  recentPools: Recent<StoragePool>;
  /** When each pool's status was last written, by uid; monotonic ms. */
  writtenAt: Map<string, number>;
};

/** What is used of a pool changes all the time; nobody waits for that figure. */
const COALESCE_MS = 5000;

/** What the nodes say; one whose Node was deleted has nothing to say any more. */
function nodesOf(name: string, ctx: PoolContext): NodePool[] {
  const said: NodePool[] = [];
  for (const host of ctx.hosts.byIndex("pool", name)) {
    const node = host.metadata.name;
    const pool: HostPool | undefined = host.status?.pools?.find((one) => one.name === name);
    const seen = nodeSeen(ctx, node);
    if (pool === undefined || seen.state === "Gone") continue;
    said.push(seen.state === "Answering" ? { node, pool } : { node, pool, silent: seen });
  }
  return said;
}

/** Whether somebody waits for this change, and it is not just a figure that moved. */
function isAwaited(have: PoolStatus | undefined, want: PoolStatus): boolean {
  const ready = have?.conditions?.find(({ type }) => type === "Ready");
  const next = want.conditions?.find(({ type }) => type === "Ready");
  return (
    ready?.status !== next?.status ||
    ready?.reason !== next?.reason ||
    have?.nodes !== want.nodes ||
    have?.directory !== want.directory ||
    have?.observedGeneration !== want.observedGeneration
  );
}

async function writeStatus(pool: StoragePool, want: PoolStatus, ctx: PoolContext): Promise<Requeue | void> {
  const { name, uid } = pool.metadata;
  if (sameStatus(pool.status, want)) return undefined;
  const left = (ctx.writtenAt.get(uid) ?? Number.NEGATIVE_INFINITY) + COALESCE_MS - ctx.clock.monotonic();
  if (left > 0 && !isAwaited(pool.status, want)) return { afterMs: left };
  const { apiVersion, kind } = pool;
  const written = await ctx.client.apply(
    storagePools,
    { apiVersion, kind, metadata: { name, uid }, status: want },
    { manager: OPERATOR_MANAGER, subresource: "status" },
  );
  ctx.recentPools.put(written);
  ctx.writtenAt.set(uid, ctx.clock.monotonic());
  tell(pool, written, ctx);
  return undefined;
}

function tell(before: StoragePool, after: StoragePool, ctx: PoolContext): void {
  const [old, now] = [before, after].map(({ status }) => status?.conditions?.find(({ type }) => type === "Ready"));
  if (now === undefined || (old?.status === now.status && old.reason === now.reason)) return;
  // That no node has it is how every pool begins.
  if (now.reason === "NoNodes" && old === undefined) return;
  // A pool that serves with a reason of its own serves less than was asked for.
  const type = now.reason === "Ready" || now.reason === "Deleting" ? "Normal" : "Warning";
  ctx.events.event(after, type, now.reason, "Follow", now.message);
  ctx.log.info({ pool: after.metadata.name, ready: now.status, reason: now.reason }, now.message);
}

/** Sums up one StoragePool; one that is deleted goes when no instance uses it and no node has it any more. */
export async function reconcilePool(key: ObjectKey, ctx: PoolContext): Promise<Requeue | void> {
  let pool = ctx.recentPools.get(key);
  if (pool === undefined) return undefined;
  const deleting = pool.metadata.deletionTimestamp !== undefined;
  if (!deleting && pool.metadata.finalizers?.includes(POOL_FINALIZER) !== true) {
    pool = await ensureFinalizer(ctx.client, storagePools, pool, POOL_FINALIZER);
    ctx.recentPools.put(pool);
  }
  const nodes = nodesOf(key.name, ctx);
  const users = ctx.instances.byIndex("pool", key.name).map((instance) => keyText(keyOf(instance)));
  if (deleting && nodes.length === 0 && users.length === 0) {
    ctx.writtenAt.delete(pool.metadata.uid);
    await removeFinalizer(ctx.client, storagePools, pool, POOL_FINALIZER);
    return undefined;
  }
  const hasAgents = nodes.length > 0 || ctx.hosts.list().length > 0;
  return writeStatus(pool, computePoolStatus({ pool, nodes, hasAgents, users, now: new Date(ctx.clock.now()) }), ctx);
}
