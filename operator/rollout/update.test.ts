import { describe, expect, it } from "vitest";
import type { Instance, PastMigration } from "../../crds/instance.ts";
import type { Migration, MigrationStatus } from "../../crds/migration.ts";
import { migrationFixture, movedInstance } from "../migration/fixtures.ts";
import { runtimes, updatable } from "../migration/in-place/fixtures.ts";
import { rolloutFixture, SINCE } from "./fixtures.ts";
import { outdatedState, updateMigration, updateName, type OutdatedFacts } from "./update.ts";

const rollout = rolloutFixture();
const runtime = runtimes[1] ?? { version: "r2" };
const web = updatable({ pid: 7, startedAt: "2026-01-01T00:00:00Z" });
const name = updateName(rollout, SINCE, web);
const made = (status?: MigrationStatus): Migration => migrationFixture(status, { mode: "InPlace" }, { name });
const begun = { handover: { attempt: 1, state: "Source" as const } };
const past = (phase: PastMigration["phase"], reason = "Timeout"): Instance => ({
  ...web,
  status: { ...web.status, lastMigration: { name, uid: "m", phase, reason, endedAt: "2026-01-01T00:30:00Z" } },
});
const draining = {
  ...web,
  status: {
    ...web.status,
    conditions: [{ type: "Draining", status: "True" as const, reason: "Moving", message: "", lastTransitionTime: "" }],
  },
};

describe("outdatedState", () => {
  it.each<[string, Partial<OutdatedFacts>, string]>([
    ["nothing in its way", {}, "ready"],
    ["not running", { instance: updatable({ state: "Starting" }) }, "busy"],
    ["in an unknown runtime", { instance: movedInstance() }, "busy"],
    ["blocked", { instance: updatable({ updateBlockers: ["huge pages"] }) }, "left"],
    ["its machine type is unknown there", { runtime: { ...runtime, machineTypes: [] } }, "left"],
    ["its update is under way", { moves: [made({ phase: "Preparing" })] }, "busy"],
    ["its update failed", { moves: [made({ phase: "Failed", ...begun })] }, "failed"],
    ["its update failed before it began", { moves: [made({ phase: "Failed", reason: "InstanceStopped" })] }, "left"],
    ["its claim has no room", { moves: [made({ phase: "Failed", reason: "NoRoomInClaim", ...begun })] }, "left"],
    ["its update was cancelled", { moves: [made({ phase: "Cancelled" })] }, "left"],
    ["its update is done, and its agent has yet to say so", { moves: [made({ phase: "Succeeded" })] }, "busy"],
    ["its update failed, and is gone", { instance: past("Failed") }, "failed"],
    ["its update could not be, and is gone", { instance: past("Failed", "NoRoomInClaim") }, "left"],
    ["its update was cancelled, and is gone", { instance: past("Cancelled") }, "left"],
    [
      "an update of another round failed",
      { moves: [made({ phase: "Failed", ...begun })], since: "2026-03-01T12:00:00.000Z" },
      "ready",
    ],
    ["it is moved", { moves: [migrationFixture({ phase: "CopyingMemory" })] }, "busy"],
    ["it was moved", { moves: [migrationFixture({ phase: "Succeeded" })] }, "ready"],
    ["it is drained", { instance: draining }, "busy"],
    ["it is being stopped", { instance: { ...web, spec: { ...web.spec, power: "Stopped" } } }, "busy"],
    [
      "it is being deleted",
      { instance: { ...web, metadata: { ...web.metadata, deletionTimestamp: "2026-01-01T00:00:00Z" } } },
      "busy",
    ],
  ])("%s", (_, more, want) =>
    expect(outdatedState({ rollout, since: SINCE, instance: web, moves: [], runtime, ...more }).state).toBe(want),
  );
});

describe("updateMigration", () => {
  it("says where to, who made it, and whose it is", () => {
    expect(updateMigration(rollout, SINCE, web, "r2")).toMatchObject({
      metadata: {
        name,
        namespace: "team-a",
        labels: { "drover.dev/rollout": "r2" },
        ownerReferences: [{ kind: "Instance", name: "web" }],
      },
      spec: { instance: "web", mode: "InPlace", runtime: "r2", priority: "Rebalance" },
    });
    expect(name).toMatch(/^update-web-[0-9a-f]{8}$/);
  });

  it("is the same for the same process in the same round, and no other", () => {
    const names = [
      name,
      updateName(rollout, SINCE, updatable({ pid: 8, startedAt: "2026-01-01T00:00:00Z" })),
      updateName(rollout, "2026-03-01T12:00:00.000Z", web),
      updateName({ ...rollout, metadata: { ...rollout.metadata, uid: "other" } }, SINCE, web),
    ];
    expect(new Set(names).size).toBe(4);
    expect(updateName(rollout, SINCE, web)).toBe(name);
  });
});
