/** Resolves what an instance names: its pool, its networks. What is unknown becomes a problem that heals when it appears. */
import { disksOf } from "../../crds/disks.ts";
import { asksForDisk } from "../../crds/disk-room.ts";
import type { StoragePool } from "../../crds/pool.ts";
import type { Condition } from "../../crds/schema.ts";
import type { Informer } from "../../kube/index.ts";
import type { Problem } from "./facts.ts";
import type { InstanceScope } from "./scope.ts";

/** Names shown to a user who mistyped one. */
const SHOWN = 5;

function missingPool(name: string, pools: Pick<Informer<StoragePool>, "list">): Problem {
  const names = pools
    .list()
    .map(({ metadata }) => metadata.name)
    .sort();
  const known =
    names.length === 0
      ? "there is none at all yet"
      : `known are ${names.slice(0, SHOWN).join(", ")}${names.length > SHOWN ? `, and ${names.length - SHOWN} more` : ""}`;
  return { reason: "PoolNotFound", message: `spec.rootDisk.pool: there is no StoragePool ${name}; make it (${known})` };
}

/** What keeps an instance from using this pool; undefined when nothing does. */
export function poolProblem(name: string | undefined, pools: Pick<Informer<StoragePool>, "get" | "list">): Problem | undefined {
  if (name === undefined) return undefined;
  const pool = pools.get({ name });
  if (pool === undefined) return missingPool(name, pools);
  if (pool.metadata.deletionTimestamp === undefined) return undefined;
  return {
    reason: "PoolDeleting",
    message: `StoragePool ${name} is being deleted; make it again when it is gone, or use another one`,
  };
}

export const poolReady = (pool: StoragePool | undefined): Condition | undefined =>
  pool?.status?.conditions?.find(({ type }) => type === "Ready");

/**
 * Why no claim is made for a pool that no Node offers yet: kube-scheduler would refuse it with a warning, although a pool that
 * was just made is published within seconds.
 */
export function unpublished(name: string, pools: Pick<Informer<StoragePool>, "get">): Problem {
  const ready = poolReady(pools.get({ name }));
  const why =
    ready?.status === "True"
      ? "it is ready, and its nodes will say within seconds how much they have; if they do not, it is full"
      : (ready?.message ?? "it was just made");
  return { reason: "WaitingForPool", message: `waiting for a node that offers room in StoragePool ${name}: ${why}` };
}

/** The pool is only needed where a claim is yet to be made: an instance that runs is not disturbed. */
export function resolvePool(scope: InstanceScope): void {
  const { ctx, instance } = scope;
  const { step } = scope.plan;
  if (step.do !== "create") return;
  for (const pool of new Set(disksOf(instance).map((disk) => disk.pool))) {
    const problem = poolProblem(pool, ctx.pools);
    if (problem !== undefined) scope.problems.pool ??= problem;
    else if (asksForDisk(step.serial) && !ctx.publishedPools.has(pool)) scope.problems.pool ??= unpublished(pool, ctx.pools);
  }
}

/** Addresses and MACs, given once and kept. */
export function assignAddresses(scope: InstanceScope): void {
  const given = scope.ctx.network.addresses.assign(scope.instance);
  if ("problem" in given) scope.problems.network = given.problem;
  else scope.nics = given.nics;
}
