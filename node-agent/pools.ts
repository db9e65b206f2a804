/** Keeps this node's storage pools as the StoragePools say that select it. */
import type { HostPool } from "../crds/host.ts";
import type { StoragePool } from "../crds/pool.ts";
import { storagePools } from "../crds/resources.ts";
import type { Informer, KubeClient, Logger, Node, ObjectKey, Requeue } from "../kube/index.ts";
import type { Pools } from "./pool/index.ts";

/** What is not as it should be is tried again after this; so is a removal that is refused while disks are there. */
const RETRY_MS = 15_000;
/** How full a pool is, and whether it is still there, is looked at this often. */
const LOOK_MS = 60_000;

export interface PoolParts {
  client: Pick<KubeClient, "get">;
  pools: Pick<Pools, "ensure" | "remove" | "list">;
  objects: Pick<Informer<StoragePool>, "get">;
  node: () => Node | undefined;
  log: Logger;
  /** A pool of this node may be another than before; undefined: it is gone. */
  onPool: (name: string, pool: HostPool | undefined) => void;
}

export type PoolTask = "ensure" | "remove" | "wait";

/** Whether the node should have the pool. Pure. `labels` undefined: the node is not known, and nothing is done. */
export function poolTask(pool: StoragePool | undefined, labels: Record<string, string> | undefined): PoolTask {
  if (labels === undefined) return "wait";
  if (pool === undefined || pool.metadata.deletionTimestamp !== undefined) return "remove";
  const wanted = Object.entries(pool.spec.nodeSelector?.matchLabels ?? {});
  return wanted.every(([key, value]) => labels[key] === value) ? "ensure" : "remove";
}

export async function reconcilePool(key: ObjectKey, parts: PoolParts, signal: AbortSignal): Promise<Requeue | void> {
  const { client, pools, objects, log, onPool } = parts;
  const cached = objects.get(key);
  const node = parts.node();
  const task = poolTask(cached, node === undefined ? undefined : (node.metadata.labels ?? {}));
  if (task === "wait") return { afterMs: RETRY_MS };
  if (task === "ensure" && cached !== undefined) {
    const pool = await pools.ensure(cached, signal);
    onPool(key.name, pool);
    return { afterMs: pool.ready ? LOOK_MS : RETRY_MS };
  }
  if (!(await pools.list()).includes(key.name)) return onPool(key.name, undefined);
  // A cache that has nothing proves nothing: the API server itself must say that there is no such pool.
  if (cached === undefined && (await client.get(storagePools, key)) !== undefined) return { afterMs: RETRY_MS };
  const outcome = await pools.remove(key.name, signal);
  if (outcome === "gone") return onPool(key.name, undefined);
  log.info({ pool: key.name, ...outcome }, "a pool cannot be taken down yet");
  return { afterMs: RETRY_MS };
}
