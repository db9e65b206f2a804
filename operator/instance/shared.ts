/** Disks in pools that nodes share: what does not bind an instance to the node where it was. Pure. */
import { disksOf } from "../../crds/disks.ts";
import type { Instance } from "../../crds/instance.ts";
import type { StoragePool } from "../../crds/pool.ts";
import type { Informer } from "../../kube/index.ts";

type PoolLookup = Pick<Informer<StoragePool>, "get">;

/** Whether the pool is one and the same on all its nodes; of one that is not known, nobody can say so. */
export const isSharedPool = (name: string, pools: PoolLookup): boolean => pools.get({ name })?.spec.shared === true;

/** Whether it may start on any node of its pools: none of its disks lies on one node alone. */
export const isUnbound = (instance: Pick<Instance, "spec" | "status">, pools: PoolLookup): boolean =>
  disksOf(instance).every(({ pool }) => isSharedPool(pool, pools));

/** Labels of the nodes that have these pools: where no GiB of them are asked for, kube-scheduler would not know. */
export const labelsOfPools = (names: readonly string[], pools: PoolLookup): [string, string][] =>
  names.flatMap((name) => Object.entries(pools.get({ name })?.spec.nodeSelector?.matchLabels ?? {}));
