/** Resolves what an instance names: its pool, its networks. What is unknown becomes a problem that heals when it appears. */
import { disksOf, fieldOfDisk, type InstanceDisk } from "../../crds/disks.ts";
import { asksForDisk } from "../../crds/disk-room.ts";
import type { StoragePool } from "../../crds/pool.ts";
import type { Condition } from "../../crds/schema.ts";
import type { Informer } from "../../kube/index.ts";
import type { Problem } from "./facts.ts";
import type { InstanceScope } from "./scope.ts";

/** Names shown to a user who mistyped one. */
const SHOWN = 5;

/** A disk and the pool that it shall lie in. */
type DiskPlace = Pick<InstanceDisk, "name" | "pool">;

function missingPool({ name, pool }: DiskPlace, pools: Pick<Informer<StoragePool>, "list">): Problem {
  const names = pools
    .list()
    .map(({ metadata }) => metadata.name)
    .sort();
  const known =
    names.length === 0
      ? "there is none at all yet"
      : `known are ${names.slice(0, SHOWN).join(", ")}${names.length > SHOWN ? `, and ${names.length - SHOWN} more` : ""}`;
  return {
    reason: "PoolNotFound",
    message: `spec.${fieldOfDisk(name)}.pool: there is no StoragePool ${pool}; make it (${known})`,
  };
}

/** What keeps a disk from lying in its pool; undefined when nothing does. */
export function poolProblem(disk: DiskPlace, pools: Pick<Informer<StoragePool>, "get" | "list">): Problem | undefined {
  const pool = pools.get({ name: disk.pool });
  if (pool === undefined) return missingPool(disk, pools);
  if (pool.metadata.deletionTimestamp === undefined) return undefined;
  return {
    reason: "PoolDeleting",
    message: `StoragePool ${disk.pool} is being deleted; make it again when it is gone, or use another one`,
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

/** The pools are only needed where a claim is yet to be made: an instance that runs is not disturbed. */
export function resolvePool(scope: InstanceScope): void {
  const { ctx, instance } = scope;
  const { step } = scope.plan;
  if (step.do !== "create") return;
  const disks = disksOf(instance);
  // What only the user can mend comes before what mends itself.
  const refused = disks.map((disk) => poolProblem(disk, ctx.pools)).find((problem) => problem !== undefined);
  const early = asksForDisk(step.serial) ? disks.find(({ pool }) => !ctx.publishedPools.has(pool)) : undefined;
  scope.problems.pool ??= refused ?? (early === undefined ? undefined : unpublished(early.pool, ctx.pools));
}

/** Addresses and MACs, given once and kept. */
export function assignAddresses(scope: InstanceScope): void {
  const given = scope.ctx.network.addresses.assign(scope.instance);
  if ("problem" in given) scope.problems.network = given.problem;
  else scope.nics = given.nics;
}
