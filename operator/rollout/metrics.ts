/** What the operator tells of roll-outs. */
import { Gauge, type Registry } from "prom-client";
import type { Rollout } from "../../crds/rollout.ts";
import type { Informer } from "../../kube/index.ts";

/** Serves `drover_rollout_instances` and `drover_rollout_stopped` from this cache; there are few. To be called once per process. */
export function exposeRollouts(rollouts: Pick<Informer<Rollout>, "list">, registry: Registry): void {
  const instances = new Gauge({
    name: "drover_rollout_instances",
    help: "Instances on nodes whose current runtime is that of the Rollout, by whether they run in it; failed: updates that failed.",
    labelNames: ["rollout", "state"],
    registers: [registry],
    collect: () => {
      instances.reset();
      for (const { metadata, status } of rollouts.list()) {
        const { updated = 0, total = 0, failed = 0 } = status ?? {};
        const set = (state: string, count: number) => instances.set({ rollout: metadata.name, state }, count);
        set("updated", updated);
        set("outdated", total - updated);
        set("failed", failed);
      }
    },
  });
  const stopped = new Gauge({
    name: "drover_rollout_stopped",
    help: "1 where a failed update has stopped the Rollout, and it waits for a person.",
    labelNames: ["rollout"],
    registers: [registry],
    collect: () => {
      stopped.reset();
      for (const { metadata, status } of rollouts.list())
        stopped.set({ rollout: metadata.name }, status?.phase === "Stopped" && status.reason === "UpdateFailed" ? 1 : 0);
    },
  });
}
