/** What the operator tells of the instances as a whole. */
import { Gauge, type Registry } from "prom-client";
import type { Instance } from "../crds/instance.ts";
import { keyText, type Change, type Informer } from "../kube/index.ts";

/** Counts instances by phase. A change costs the same however many there are. */
export class PhaseCounts {
  readonly #phases = new Map<string, string>();
  readonly #counts = new Map<string, number>();

  /** A deletion may tell a later state than was told before, so what was counted is remembered here. */
  note({ key, now }: Change<Instance>): void {
    const name = keyText(key);
    const before = this.#phases.get(name);
    if (before !== undefined) this.#add(before, -1);
    this.#phases.delete(name);
    if (now === undefined) return;
    const phase = now.status?.phase ?? "New";
    this.#phases.set(name, phase);
    this.#add(phase, 1);
  }

  /** Phases that were ever seen; those without an instance count 0. */
  get counts(): ReadonlyMap<string, number> {
    return this.#counts;
  }

  #add(phase: string, one: 1 | -1): void {
    this.#counts.set(phase, (this.#counts.get(phase) ?? 0) + one);
  }
}

/** Serves `drover_instances` from this cache. To be called once per process. */
export function exposeInstances(instances: Pick<Informer<Instance>, "onChange">, registry: Registry): void {
  const phases = new PhaseCounts();
  instances.onChange((change) => phases.note(change));
  const gauge = new Gauge({
    name: "drover_instances",
    help: "Instances by phase.",
    labelNames: ["phase"],
    registers: [registry],
    collect: () => {
      for (const [phase, count] of phases.counts) gauge.set({ phase }, count);
    },
  });
}
