/** Which instances run in which runtime on which node, counted as they change: a change costs the same however many there are. */
import type { Instance } from "../../crds/instance.ts";
import { findCondition, keyText, type Change } from "../../kube/index.ts";
import { runningGuest } from "../migration/preflight.ts";

interface Entry {
  node: string;
  /** "": its agent has not said. */
  version: string;
  /** Changes when it may matter to a roll-out that waits for it. */
  mark: string;
}

/** Keys of a node's running instances, by runtime. */
type ByVersion = Map<string, Set<string>>;

function entryOf(instance: Instance | undefined, before: Entry | undefined): Entry | undefined {
  if (instance === undefined) return undefined;
  const guest = runningGuest(instance);
  // It has just come to another claim, whose agent has not said more yet: it runs all the same, in what is known of it.
  if (guest === undefined && isArriving(instance)) return before;
  const { nodeName: node, migration, lastMigration, conditions } = instance.status ?? {};
  if (guest === undefined || node === undefined) return undefined;
  const version = guest.runtimeVersion ?? "";
  const draining = findCondition(conditions, "Draining")?.status === "True";
  const mark = [migration?.uid, lastMigration?.uid, draining, ...(guest.updateBlockers ?? [])].join("/");
  return { node, version, mark };
}

const isArriving = ({ status }: Instance): boolean => status?.migration !== undefined && status.guest?.state === "Running";

export class Tally {
  readonly #entries = new Map<string, Entry>();
  readonly #nodes = new Map<string, ByVersion>();

  /** Takes the change in; the nodes to whose roll-out it matters. */
  note({ key, now }: Change<Instance>): string[] {
    const name = keyText(key);
    const before = this.#entries.get(name);
    const after = entryOf(now, before);
    if (before?.node === after?.node && before?.version === after?.version && before?.mark === after?.mark) return [];
    if (before !== undefined) this.#take(name, before);
    if (after !== undefined) this.#put(name, after);
    return [...new Set([before?.node, after?.node])].filter((node) => node !== undefined);
  }

  /** Running instances of these nodes, and how many of them run in this runtime. */
  count(nodes: Iterable<string>, version: string): { updated: number; total: number } {
    let [updated, total] = [0, 0];
    for (const node of nodes) {
      for (const [one, keys] of this.#nodes.get(node) ?? []) {
        total += keys.size;
        if (one === version) updated += keys.size;
      }
    }
    return { updated, total };
  }

  /** Those of a node that run in another runtime, in the order in which they came to it. */
  *outdated(node: string, version: string): Generator<string> {
    for (const [one, keys] of this.#nodes.get(node) ?? []) if (one !== version) yield* keys;
  }

  #put(name: string, entry: Entry): void {
    const { node, version } = entry;
    this.#entries.set(name, entry);
    const versions: ByVersion = this.#nodes.get(node) ?? new Map();
    this.#nodes.set(node, versions);
    versions.set(version, (versions.get(version) ?? new Set()).add(name));
  }

  #take(name: string, { node, version }: Entry): void {
    this.#entries.delete(name);
    const versions = this.#nodes.get(node);
    const keys = versions?.get(version);
    keys?.delete(name);
    if (keys?.size === 0) versions?.delete(version);
    if (versions?.size === 0) this.#nodes.delete(node);
  }
}
