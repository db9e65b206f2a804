/** What the agent counts of moves. */
import { Counter, Histogram, type Registry } from "prom-client";

export class MoveMetrics {
  readonly #ended = new Counter({
    name: "drover_agent_moves_total",
    help: "Attempts of moves that ended on this node, by its side and how.",
    labelNames: ["side", "result"],
    registers: [],
  });
  readonly #pause = new Histogram({
    name: "drover_agent_move_pause_seconds",
    help: "How long guests that left this node stood still.",
    buckets: [0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10],
    registers: [],
  });
  readonly #bytes = new Counter({
    name: "drover_agent_move_bytes_total",
    help: "Bytes sent by moves that left this node.",
    labelNames: ["what"],
    registers: [],
  });

  register(registry: Registry): void {
    registry.registerMetric(this.#ended);
    registry.registerMetric(this.#pause);
    registry.registerMetric(this.#bytes);
  }

  ended(side: "source" | "target", result: "moved" | "given-up"): void {
    this.#ended.inc({ side, result });
  }

  paused(ms: number): void {
    this.#pause.observe(ms / 1_000);
  }

  sent(bytes: { memory: number; disk: number }): void {
    for (const what of ["memory", "disk"] as const) this.#bytes.inc({ what }, Math.max(0, bytes[what]));
  }
}
