/** Which runtime is current on which node, kept as Hosts change. */
import type { Host } from "../../crds/host.ts";
import { rolloutName } from "../../crds/names.ts";
import type { Change } from "../../kube/index.ts";

/** Only of an agent that speaks of its runtimes: one that does not cannot replace a QEMU either. */
const versionOf = (host: Host | undefined): string | undefined => host?.status?.runtimes?.find((one) => one.current)?.version;

export class CurrentRuntimes {
  readonly #versions = new Map<string, string>();
  /** By name of the Rollout. */
  readonly #runtimes = new Map<string, { version: string; nodes: Set<string> }>();

  /** Takes the change in; names of the Rollouts that it concerns. */
  note({ key, now }: Change<Host>): string[] {
    const node = key.name;
    const [before, after] = [this.#versions.get(node), versionOf(now)];
    if (before === after) return [];
    if (before !== undefined) this.#take(node, before);
    if (after !== undefined) this.#put(node, after);
    return [before, after].filter((version) => version !== undefined).map(rolloutName);
  }

  /** The version of this Rollout and the nodes whose current one it is; undefined where there is none. */
  of(rollout: string): { version: string; nodes: ReadonlySet<string> } | undefined {
    return this.#runtimes.get(rollout);
  }

  /** The Rollout of this node's current runtime. */
  on(node: string): string | undefined {
    const version = this.#versions.get(node);
    return version === undefined ? undefined : rolloutName(version);
  }

  /** Nodes that say which runtime is current. */
  get nodes(): number {
    return this.#versions.size;
  }

  #put(node: string, version: string): void {
    this.#versions.set(node, version);
    const name = rolloutName(version);
    const runtime = this.#runtimes.get(name) ?? { version, nodes: new Set() };
    this.#runtimes.set(name, runtime);
    runtime.nodes.add(node);
  }

  #take(node: string, version: string): void {
    this.#versions.delete(node);
    const name = rolloutName(version);
    const nodes = this.#runtimes.get(name)?.nodes;
    nodes?.delete(node);
    if (nodes?.size === 0) this.#runtimes.delete(name);
  }
}
