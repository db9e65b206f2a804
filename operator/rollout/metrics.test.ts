import { Registry } from "prom-client";
import { expect, it } from "vitest";
import { rolling, rolloutFixture } from "./fixtures.ts";
import { exposeRollouts } from "./metrics.ts";

it("tells how far each roll-out is, and which one was stopped by a failure", async () => {
  const registry = new Registry();
  const stopped = rolloutFixture({ phase: "Stopped", reason: "UpdateFailed", updated: 2, total: 5, failed: 1 });
  const old = { ...rolloutFixture({ phase: "Stopped", reason: "Superseded" }) };
  let list = [stopped, { ...old, metadata: { ...old.metadata, name: "r1" } }];
  exposeRollouts({ list: () => list }, registry);
  const said = await registry.metrics();
  expect(said).toContain('drover_rollout_stopped{rollout="r2"} 1');
  expect(said).toContain('drover_rollout_stopped{rollout="r1"} 0');
  expect(said).toContain('drover_rollout_instances{rollout="r2",state="updated"} 2');
  expect(said).toContain('drover_rollout_instances{rollout="r2",state="outdated"} 3');
  expect(said).toContain('drover_rollout_instances{rollout="r2",state="failed"} 1');
  list = [rolloutFixture(rolling)];
  const later = await registry.metrics();
  expect(later).toContain('drover_rollout_stopped{rollout="r2"} 0');
  expect(later).not.toContain('rollout="r1"');
});
