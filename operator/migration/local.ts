/** What is different about a move that stays on its node: the root disk goes to another pool there. Pure. */
import { disksOf, ROOT_DISK } from "../../crds/disks.ts";
import type { Instance } from "../../crds/instance.ts";
import type { Migration } from "../../crds/migration.ts";

/** Whether the Migration asks for another pool than the one that the root disk lies in. */
export const changesPool = ({ spec }: Pick<Migration, "spec">, instance: Instance): boolean => {
  const pool = spec.target?.pool;
  return pool !== undefined && disksOf(instance).some((disk) => disk.name === ROOT_DISK && disk.pool !== pool);
};

/**
 * Whether the disk goes to another pool of the node that the instance is on: it is the node that is named, or none is and no other node
 * has the pool. `nodesWith`: the nodes that say they have a pool of this name.
 */
export function staysOnNode(
  migration: Pick<Migration, "spec">,
  instance: Instance,
  nodesWith: (pool: string) => readonly string[],
): boolean {
  const { node, nodeSelector, pool } = migration.spec.target ?? {};
  const here = instance.status?.nodeName;
  if (here === undefined || pool === undefined || !changesPool(migration, instance)) return false;
  if (node !== undefined) return node === here;
  if (nodeSelector !== undefined) return false;
  const nodes = nodesWith(pool);
  return nodes.length === 1 && nodes[0] === here;
}

/** Whether a move that has begun is one that stays on its node. */
export const isLocal = (status: { sourceNode?: string | undefined; targetNode?: string | undefined } | undefined): boolean =>
  status?.targetNode !== undefined && status.targetNode !== "" && status.targetNode === status.sourceNode;

/** What goes where, for people: `its root disk from pool a to pool b on node n1`. */
export function wayOf({ status }: Pick<Migration, "status">): string {
  const { sourceNode = "", targetNode = "", disks = [] } = status ?? {};
  if (!isLocal(status)) return `from node ${sourceNode} to node ${targetNode}`;
  const moved = disks.find(({ copy }) => copy);
  return `disk ${moved?.name ?? ROOT_DISK} from pool ${moved?.sourcePool ?? ""} to pool ${moved?.targetPool ?? ""} of node ${targetNode}`;
}
