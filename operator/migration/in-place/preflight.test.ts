import { describe, expect, it } from "vitest";
import type { Instance } from "../../../crds/instance.ts";
import { movedInstance } from "../fixtures.ts";
import { runtimes, updatable, updateFixture, updateHost } from "./fixtures.ts";
import { checkUpdate, type UpdateFacts } from "./preflight.ts";

const facts = (more: Partial<UpdateFacts> = {}): UpdateFacts => ({
  migration: updateFixture(),
  instance: updatable(),
  source: { state: "Answering" },
  host: updateHost(),
  ...more,
});
const deleted = (): Instance => updatable({}, { metadata: { deletionTimestamp: "2026-01-01T00:30:00Z" } });

describe("checkUpdate", () => {
  it("goes from what the guest runs in to the node's current runtime", () =>
    expect(checkUpdate(facts())).toEqual({
      state: "ok",
      change: { from: { version: "r1", qemu: "10.0.2" }, to: { version: "r2", qemu: "10.0.13" } },
    }));

  it("goes to the runtime that is asked for, an older one too", () => {
    const instance = updatable({ runtimeVersion: "r2", qemuVersion: "10.0.13" });
    const migration = updateFixture(undefined, { runtime: "r1" });
    expect(checkUpdate(facts({ instance, migration }))).toMatchObject({
      change: { from: { version: "r2" }, to: { version: "r1" } },
    });
  });

  it.each<[string, Partial<UpdateFacts>, string, string, string]>([
    ["no instance", { instance: undefined }, "wait", "InstanceNotFound", "there is no Instance web in namespace team-a"],
    ["deleted", { instance: deleted() }, "fail", "InstanceDeleted", "is being deleted"],
    [
      "stopped",
      { instance: updatable({}, { spec: { power: "Stopped" } }) },
      "fail",
      "InstanceStopped",
      "has no QEMU to be replaced",
    ],
    [
      "not running",
      { instance: updatable({ state: "Starting" }) },
      "wait",
      "InstanceNotRunning",
      "waits until instance web runs",
    ],
    ["in another claim", { instance: updatable({ claimUid: "c0" }) }, "wait", "InstanceNotRunning", "waits until"],
    ["node gone", { source: { state: "Gone" } }, "fail", "NodeGone", "node n1 is no longer in the cluster"],
    [
      "agent silent",
      { source: { state: "Silent", reason: "AgentSilent", message: "the agent of node n1 has not been heard of" } },
      "wait",
      "AgentSilent",
      "the guest cannot be updated now: the agent of node n1",
    ],
    ["no Host", { host: undefined }, "wait", "RuntimesUnknown", "has not said which runtimes lie there"],
    ["an agent of before", { host: updateHost({ runtimes: undefined }) }, "wait", "RuntimesUnknown", "has not said"],
    ["guest's runtime unknown", { instance: movedInstance() }, "wait", "RuntimeUnknown", "which runtime the guest runs in"],
    [
      "unknown runtime",
      { migration: updateFixture(undefined, { runtime: "r9" }) },
      "fail",
      "RuntimeNotFound",
      "runtime: node n1 has no runtime r9; it has r1, r2",
    ],
    [
      "current already",
      { instance: updatable({ runtimeVersion: "r2", qemuVersion: "10.0.13" }) },
      "current",
      "AlreadyCurrent",
      "the guest runs in runtime r2 (QEMU 10.0.13) of node n1 already",
    ],
    [
      "blocked",
      { instance: updatable({ updateBlockers: ["it was started with huge pages"] }) },
      "fail",
      "UpdateBlocked",
      "its QEMU cannot be replaced in place: it was started with huge pages; move it to another node",
    ],
    [
      "machine type unknown there",
      { host: updateHost({ runtimes: runtimes.map((one) => ({ ...one, machineTypes: ["pc-q35-9.0"] })) }) },
      "fail",
      "MachineTypeUnknown",
      "runtime r2 (QEMU 10.0.13) does not know its machine type pc-q35-10.0; move it",
    ],
    [
      "old QEMU",
      { instance: updatable({ qemuVersion: "8.2.1" }) },
      "fail",
      "QEMUTooOld",
      "QEMU 8.2.1 cannot hand a running guest over",
    ],
  ])("%s", (_, more, state, reason, says) => {
    const check = checkUpdate(facts(more));
    expect(check).toMatchObject({ state, reason });
    expect("message" in check ? check.message : "").toContain(says);
  });
});
