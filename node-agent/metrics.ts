/** What the agent counts, beside what the controller runtime counts for it. */
import { Gauge, type Registry } from "prom-client";
import type { Instance } from "../crds/instance.ts";

/** Shows the instances by what was last said of their guests, how often that was written, and disks that nobody owns. */
export function exposeAgent(
  registry: Registry,
  of: { instances: () => readonly Instance[]; writes: () => number; lostDisks: () => number },
): void {
  const instances = new Gauge({
    name: "drover_agent_instances",
    help: "Instances of this node, by what was last said of their guests.",
    labelNames: ["state"],
    collect() {
      this.reset();
      for (const one of of.instances()) this.inc({ state: one.status?.guest?.state ?? "None" });
    },
    registers: [],
  });
  const writes = new Gauge({
    name: "drover_agent_status_writes",
    help: "Writes of status.guest since the agent began.",
    collect() {
      this.set(of.writes());
    },
    registers: [],
  });
  const lost = new Gauge({
    name: "drover_agent_lost_disks",
    help: "Instances that vanished from the API without being released and of which disks are left on this node.",
    collect() {
      this.set(of.lostDisks());
    },
    registers: [],
  });
  for (const metric of [instances, writes, lost]) registry.registerMetric(metric);
}
