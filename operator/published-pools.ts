/** Which pools kube-scheduler can place disks in: those whose GiB at least one Node offers. */
import { poolResource } from "../crds/names.ts";
import type { Change, Node } from "../kube/index.ts";

const PREFIX = poolResource("");

/** What a Node offers of pools, by resource; all else of its room is kube-scheduler's business. */
export const poolRoom = (node: Node | undefined): Record<string, string> =>
  Object.fromEntries(Object.entries(node?.status?.allocatable ?? {}).filter(([name]) => name.startsWith(PREFIX)));

/** Pools of which this Node offers something. Zero is what a node says whose pool is not mounted yet, or is full. */
function offered(node: Node | undefined): Set<string> {
  const some = Object.entries(poolRoom(node)).filter(([, amount]) => amount !== "0");
  return new Set(some.map(([name]) => name.slice(PREFIX.length)));
}

interface Nodes {
  onChange(fn: (change: Change<Node>) => void): () => void;
}

/** Counts, for each pool, the Nodes that offer some of it; an event costs what its own Node offers. */
export class PublishedPools {
  readonly #nodes = new Map<string, number>();
  readonly #listeners = new Set<(pool: string) => void>();

  constructor(nodes: Nodes) {
    nodes.onChange((change) => this.#note(change));
  }

  has(pool: string): boolean {
    return this.#nodes.has(pool);
  }

  /** Tells the name of a pool that no Node had offered, and one does now. */
  onFirst(fn: (pool: string) => void): () => void {
    this.#listeners.add(fn);
    return () => void this.#listeners.delete(fn);
  }

  #note({ old, now }: Change<Node>): void {
    const [before, after] = [offered(old), offered(now)];
    for (const pool of before) if (!after.has(pool)) this.#add(pool, -1);
    for (const pool of after) if (!before.has(pool)) this.#add(pool, 1);
  }

  #add(pool: string, nodes: 1 | -1): void {
    const count = (this.#nodes.get(pool) ?? 0) + nodes;
    if (count <= 0) this.#nodes.delete(pool);
    else this.#nodes.set(pool, count);
    if (nodes === 1 && count === 1) for (const listener of this.#listeners) listener(pool);
  }
}
