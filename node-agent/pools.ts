/** Keeps this node's storage pools as the StoragePools say that select it. */
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
  /** What should be done about a pool was done, or tried. */
  looked: (name: string) => void;
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
  const again = await reconcileOne(key, parts, signal);
  if (parts.node() !== undefined) parts.looked(key.name);
  return again;
}

async function reconcileOne(key: ObjectKey, parts: PoolParts, signal: AbortSignal): Promise<Requeue | void> {
  const { client, pools, objects, log } = parts;
  const cached = objects.get(key);
  const node = parts.node();
  const task = poolTask(cached, node === undefined ? undefined : (node.metadata.labels ?? {}));
  if (task === "wait") return { afterMs: RETRY_MS };
  if (task === "ensure" && cached !== undefined) {
    const pool = await pools.ensure(cached, signal);
    return { afterMs: pool.ready ? LOOK_MS : RETRY_MS };
  }
  if (!(await pools.list()).includes(key.name)) return;
  // A cache that has nothing proves nothing: the API server itself must say that there is no such pool.
  if (cached === undefined && (await client.get(storagePools, key)) !== undefined) return { afterMs: RETRY_MS };
  const outcome = await pools.remove(key.name, signal);
  if (outcome === "gone") return;
  log.info({ pool: key.name, ...outcome }, "a pool cannot be taken down yet");
  return { afterMs: RETRY_MS };
}
