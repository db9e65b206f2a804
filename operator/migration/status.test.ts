import { describe, expect, it } from "vitest";
import type { MigrationSource, MigrationStatus } from "../../crds/migration.ts";
import { migrationFixture, movingStatus, NOW } from "./fixtures.ts";
import type { MovePlan } from "./plan.ts";
import { computeStatus, ownStatus, phaseOf } from "./status.ts";
import { moveEvents } from "./transitions.ts";

const wait: MovePlan = { step: { do: "wait" }, reason: "CopyingMemory", message: "the memory is being copied" };
const source = (state: MigrationSource["state"], more: Partial<MigrationSource> = {}) => ({
  source: { attempt: 1, state, ...more },
});

describe("phaseOf", () => {
  it.each<[string, MigrationStatus | undefined, Partial<MovePlan>, string]>([
    ["new", undefined, {}, "Pending"],
    ["has its turn", movingStatus(), {}, "Pending"],
    ["begins", movingStatus(), { step: { do: "begin", from: undefined, to: { attempt: 1, state: "Copying" } } }, "Preparing"],
    ["the target prepares", movingStatus("Copying"), {}, "Preparing"],
    ["disks", movingStatus("Copying", source("CopyingDisk")), {}, "CopyingDisk"],
    ["memory", movingStatus("Copying", source("CopyingMemory")), {}, "CopyingMemory"],
    ["memory, before the record says more", movingStatus("Copying", source("SwitchingOver")), {}, "CopyingMemory"],
    ["switchover", movingStatus("Handover", source("SwitchingOver")), {}, "SwitchingOver"],
    ["the target may run", movingStatus("Target"), {}, "SwitchingOver"],
    ["arrived", movingStatus("Done"), {}, "SwitchingOver"],
    ["given up", movingStatus("Source"), {}, "Pending"],
    ["over", movingStatus("Done"), { end: "Succeeded" }, "Succeeded"],
    ["was over", movingStatus("Done", { phase: "Failed" }), {}, "Failed"],
  ])("%s", (_, status, plan, want) => expect(phaseOf(migrationFixture(status), { ...wait, ...plan })).toBe(want));
});

describe("computeStatus", () => {
  const now = new Date(NOW);
  const of = (status: MigrationStatus, plan: Partial<MovePlan> = {}) =>
    computeStatus(migrationFixture(status), { ...wait, ...plan }, now);

  it("leaves out what the agents say, and who owns the guest", () => {
    const status = of(movingStatus("Copying", source("CopyingMemory")));
    expect(status).not.toHaveProperty("source");
    expect(status).not.toHaveProperty("handover");
    expect(status.conditions?.map(({ type, status: is, reason }) => `${type}=${is} ${reason}`)).toEqual([
      "Ready=False CopyingMemory",
      "Progressing=False CopyingMemory",
    ]);
  });

  it("says with the figures of the moment that memory does not converge, and once that it does again", () => {
    const stalled = (text: string | undefined, before?: MigrationStatus["conditions"]) => {
      const said = text === undefined ? source("CopyingMemory") : source("CopyingMemory", { stalled: text });
      return of(movingStatus("Copying", { ...said, ...(before === undefined ? {} : { conditions: before }) })).conditions;
    };
    const first = stalled("100 MB/s against 80 MB/s");
    const later = stalled("101 MB/s against 80 MB/s", first);
    const over = stalled(undefined, later);
    const seen = [first, later, over].map((list) => list?.find(({ type }) => type === "Stalled"));
    expect(seen.map((one) => `${one?.status} ${one?.message}`)).toEqual([
      "True 100 MB/s against 80 MB/s",
      "True 100 MB/s against 80 MB/s",
      "False it is so no more",
    ]);
  });

  it("keeps the cause of an attempt that was given up until the next has its turn", () => {
    const conditions = [
      {
        type: "Progressing",
        status: "False" as const,
        reason: "DiskFull",
        message: "full",
        lastTransitionTime: "2026-01-01T00:00:00Z",
      },
    ];
    const status = of(movingStatus("Source", { conditions }), { reason: "GivingUp" });
    expect(status.conditions?.find(({ type }) => type === "Progressing")).toMatchObject({ reason: "DiskFull" });
  });

  it("takes away what the plan takes away", () => {
    const status = of(movingStatus("Source"), { set: { retries: 1, targetClaim: undefined } });
    expect([status.retries, status.targetClaim]).toEqual([1, undefined]);
  });
});

describe("moveEvents", () => {
  const status = (phase: MigrationStatus["phase"], reason: string, ...on: string[]) => ({
    phase,
    reason,
    conditions: ["Ready", ...on].map((type) => ({
      type,
      status: type === "Ready" ? ("False" as const) : ("True" as const),
      reason,
      message: `because of ${type}`,
      lastTransitionTime: "",
    })),
  });
  const none = ownStatus(undefined);
  it.each([
    ["waits for a slot", none, status("Pending", "WaitingForSlot"), ["Normal WaitingForSlot: because of Ready"]],
    ["still waits for it", status("Pending", "WaitingForSlot"), status("Pending", "WaitingForSlot"), []],
    [
      "finds no room",
      status("Pending", "Scheduling"),
      status("Pending", "Unschedulable"),
      ["Warning Unschedulable: because of Ready"],
    ],
    ["is placed in a moment", none, status("Pending", "Scheduling"), []],
    ["copies", status("Preparing", "Preparing"), status("CopyingDisk", "CopyingDisk"), ["Normal CopyingDisk: because of Ready"]],
    ["stalls", status("CopyingMemory", "M"), status("CopyingMemory", "M", "Stalled"), ["Warning Stalled: because of Stalled"]],
    [
      "is undecided",
      status("SwitchingOver", "S"),
      status("SwitchingOver", "N", "NeedsDecision"),
      ["Warning NeedsDecision: because of NeedsDecision"],
    ],
    ["is tried again", status("CopyingMemory", "M"), status("Pending", "Retrying"), ["Warning Retrying: because of Ready"]],
    ["succeeds", status("SwitchingOver", "S"), status("Succeeded", "Moved"), ["Normal Succeeded: because of Ready"]],
    ["fails", status("Pending", "GivingUp"), status("Failed", "DiskFull"), ["Warning Failed: because of Ready"]],
    ["is cancelled", status("Pending", "GivingUp"), status("Cancelled", "Cancelled"), ["Normal Cancelled: because of Ready"]],
  ])("%s", (_, before, after, want) => {
    expect(moveEvents(before, after).map(({ type, reason, note }) => `${type} ${reason}: ${note}`)).toEqual(want);
  });
});
