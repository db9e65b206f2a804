import { expect, it } from "vitest";
import { instanceFixture } from "./instance/fixtures.ts";
import { PhaseCounts } from "./metrics.ts";

it("counts instances by phase, each once", () => {
  const phases = new PhaseCounts();
  const key = (name: string) => ({ namespace: "team-a", name });
  const running = instanceFixture({ status: { phase: "Running" } });
  phases.note({ key: key("a"), now: instanceFixture() });
  phases.note({ key: key("b"), now: running });
  phases.note({ key: key("a"), old: instanceFixture(), now: running });
  phases.note({ key: key("b"), old: instanceFixture({ status: { phase: "Stopped" } }) });
  expect([...phases.counts]).toEqual([
    ["New", 0],
    ["Running", 1],
  ]);
});
