import { describe, expect, it } from "vitest";
import type { MigrationSource, MigrationTarget } from "../../../crds/migration.ts";
import type { NodeSeen } from "../../instance/facts.ts";
import { UID } from "../../instance/fixtures.ts";
import { activeMove, chassisOf } from "../active.ts";
import { migrationFixture, movedInstance, NOW, sourceClaim } from "../fixtures.ts";
import { planMove, type MoveFacts, type MovePlan } from "../plan.ts";
import { phaseOf } from "../status.ts";
import { updatable, updateFacts, updateFixture, updatingStatus } from "./fixtures.ts";

const MINUTE = 60_000;
const silent: NodeSeen = { state: "Silent", reason: "AgentSilent", message: "the agent of node n1 is silent" };
const fenced: NodeSeen = { state: "Fenced", reason: "NodeOutOfService", message: "node n1 was put out of service" };
const source = (state: MigrationSource["state"], more: Partial<MigrationSource> = {}) => ({
  source: { attempt: 1, state, ...more },
});
const target = (state: MigrationTarget["state"], more: Partial<MigrationTarget> = {}) => ({
  target: { attempt: 1, state, ...more },
});
const through = { ...source("GivenUp"), ...target("Released") };
const lasted = (ms: number, ...topics: string[]): Pick<MoveFacts, "lasted"> => ({
  lasted: (topic, value) => (value !== undefined && topics.includes(topic) ? ms : 0),
});
const noted = (reason: string) => ({
  conditions: [
    {
      type: "Progressing",
      status: "False" as const,
      reason,
      message: `for ${reason}`,
      lastTransitionTime: "2026-01-01T00:59:59Z",
    },
  ],
});

/** A plan in one line: the step, the end, and the reason. */
function said({ step, end, reason }: MovePlan): string {
  const what =
    step.do === "write" ? `write ${step.to.state}` : step.do === "begin" ? `begin ${step.to.attempt}` : (end ?? step.do);
  return `${what}: ${reason}`;
}

const at = (...args: Parameters<typeof updatingStatus>) => ({ migration: updateFixture(updatingStatus(...args)) });
const cancelled = (...args: Parameters<typeof updatingStatus>) => ({
  migration: updateFixture(updatingStatus(...args), { cancel: true }),
});
const updated = updatable({ runtimeVersion: "r2", qemuVersion: "10.0.13" });
const stopped = updatable({}, { spec: { power: "Stopped" } });

type Case = [what: string, facts: Partial<MoveFacts>, want: string];
const plans = (cases: Case[]) => it.each(cases)("%s", (_, facts, want) => expect(said(planMove(updateFacts(facts)))).toBe(want));

describe("before it begins", () => {
  plans([
    ["nothing in its way: it takes its turn", {}, "note: Preparing"],
    ["cancelled", { migration: updateFixture(undefined, { cancel: true }) }, "Cancelled: Cancelled"],
    ["no instance", { instance: undefined }, "wait: InstanceNotFound"],
    [
      "another instance of that name",
      { ...at(), instance: updatable({}, { metadata: { uid: "other" } }) },
      "Cancelled: InstanceDeleted",
    ],
    ["stopped", { instance: stopped }, "Failed: InstanceStopped"],
    ["stopped, with its turn", { ...at(), instance: stopped }, "Cancelled: InstanceStopped"],
    [
      "not running for ten minutes",
      { instance: updatable({ state: "Starting" }), ...lasted(10 * MINUTE, "wait") },
      "Failed: InstanceNotRunning",
    ],
    ["another Migration is first", { first: migrationFixture(undefined, {}, { name: "web-0" }) }, "wait: WaitingForMigration"],
    ["another is first, and it is current", { first: migrationFixture(), instance: updated }, "wait: WaitingForMigration"],
    ["current already", { instance: updated }, "Succeeded: AlreadyCurrent"],
    ["blocked", { instance: updatable({ updateBlockers: ["a device"] }) }, "Failed: UpdateBlocked"],
    ["unknown runtime", { migration: updateFixture(undefined, { runtime: "r9" }) }, "Failed: RuntimeNotFound"],
    ["no slot", { askTurn: () => ({ granted: false, reason: "WaitingForSlot", message: "" }) }, "wait: WaitingForSlot"],
    ["its turn", at(), "begin 1: Preparing"],
    ["after a failure", at(undefined, { retries: 1, targetClaim: undefined, ...noted("AgentIdle") }), "wait: BackingOff"],
    [
      "a second attempt",
      at(undefined, { retries: 1, handover: { attempt: 1, state: "Source" }, ...through }),
      "begin 2: Preparing",
    ],
    [
      "a second attempt, with the first still there",
      at(undefined, { retries: 1, handover: { attempt: 1, state: "Source" }, ...source("GivenUp") }),
      "wait: Preparing",
    ],
  ]);

  it("takes its turn in the instance's own claim", () =>
    expect(planMove(updateFacts()).set).toEqual({
      instanceUid: UID,
      startedAt: new Date(NOW).toISOString(),
      sourceNode: "n1",
      targetClaim: { name: "drover-web-1", uid: "c1" },
    }));

  it("begins from the node to itself, in one claim, without a disk", () => {
    const policy = { maxPause: "40ms" };
    const plan = planMove(updateFacts({ migration: updateFixture(updatingStatus(), { policy }) }));
    expect(plan.set).toEqual({
      sourceNode: "n1",
      targetNode: "n1",
      sourceClaim: { name: "drover-web-1", uid: "c1" },
      targetClaim: { name: "drover-web-1", uid: "c1" },
      disks: [],
      policy: { maxPauseMs: 40, onStall: "Abort", timeoutMs: 120_000, tls: false },
      runtime: { from: { version: "r1", qemu: "10.0.2" }, to: { version: "r2", qemu: "10.0.13" } },
      guestRestarts: 0,
    });
    expect(plan.message).toBe("node n1 prepares a new QEMU, from runtime r1 (QEMU 10.0.2) to runtime r2 (QEMU 10.0.13)");
  });
});

describe("under way", () => {
  plans([
    ["nobody has taken it up yet", at("Copying"), "wait: Preparing"],
    ["nor for two minutes", { ...at("Copying"), ...lasted(2 * MINUTE, "AgentIdle") }, "write Source: GivingUp"],
    ["it prepares", at("Copying", target("Preparing")), "wait: Preparing"],
    ["it says what it waits for", at("Copying", target("Preparing", { reason: "Starting" })), "wait: Starting"],
    [
      "for longer than anybody waits",
      { ...at("Copying", target("Preparing")), ...lasted(8 * MINUTE, "Copying") },
      "write Source: GivingUp",
    ],
    ["cancelled", cancelled("Copying", target("Ready")), "write Source: GivingUp"],
    ["stopped", { ...at("Copying"), instance: stopped }, "write Source: GivingUp"],
    ["deleted", { ...at("Copying"), instance: undefined }, "write Source: GivingUp"],
    ["its agent gives up", at("Copying", target("GivenUp", { reason: "NoRoomInClaim" })), "write Source: GivingUp"],
    ["agent silent", { ...at("Copying"), source: silent, target: silent }, "wait: Preparing"],
    [
      "agent silent for a minute",
      { ...at("Copying"), source: silent, ...lasted(MINUTE, "AgentSilent") },
      "write Source: GivingUp",
    ],
    ["node dead", { ...at("Copying"), source: fenced }, "write Source: GivingUp"],
    ["claim lost", { ...at("Copying"), sourceClaim: undefined }, "write Source: GivingUp"],
    ["claim evicted", { ...at("Copying"), sourceClaim: { ...sourceClaim, deleting: true } }, "write Source: GivingUp"],
    ["switching", at("Handover"), "wait: SwitchingOver"],
    ["cancelled too late", cancelled("Handover"), "wait: TooLate"],
    [
      "switching, with a silent agent",
      { ...at("Handover"), source: silent, ...lasted(60 * MINUTE, "AgentSilent") },
      "wait: SwitchingOver",
    ],
    ["switching, on a node that died", { ...at("Handover"), source: fenced }, "Failed: NodeDied"],
    ["switching, on a node that is gone", { ...at("Handover"), source: { state: "Gone" } }, "Failed: NodeDied"],
  ]);

  it.each<[string, Partial<MoveFacts>, string]>([
    ["taken up", at("Copying", target("Ready")), "Preparing"],
    ["the agent is ahead of the record", at("Copying", source("SwitchingOver")), "Preparing"],
    ["switching", at("Handover", source("SwitchingOver")), "SwitchingOver"],
    ["decided", at("Done"), "SwitchingOver"],
  ])("its phase when %s", (_, facts, want) => {
    const all = updateFacts(facts);
    expect(phaseOf(all.migration, planMove(all))).toBe(want);
  });

  it("leaves the instance on its one chassis, in its one claim", () => {
    const move = activeMove([at("Handover").migration], UID);
    expect(move).toMatchObject({ inPlace: true, state: "Handover" });
    expect(chassisOf(move, "n1")).toEqual(["n1"]);
  });
});

describe("decided", () => {
  plans([
    ["the old QEMU is still there", at("Done", source("Completed")), "wait: Releasing"],
    ["the instance is not told yet", at("Done", source("Released")), "wait: Releasing"],
    ["nor for half a minute", { ...at("Done", source("Released")), ...lasted(30_000, "wait") }, "Succeeded: Updated"],
    ["all is told", { ...at("Done", source("Released")), instance: updated }, "Succeeded: Updated"],
    [
      "the guest has stopped since",
      { ...at("Done", source("Released")), instance: updatable({ state: "Stopped" }) },
      "Succeeded: Updated",
    ],
    [
      "the guest died of it",
      { ...at("Done", source("Released")), instance: updatable({ state: "Failed" }) },
      "Failed: GuestEnded",
    ],
    [
      "the guest died of it, and was started again",
      { ...at("Done", { ...source("Released"), guestRestarts: 2 }), instance: updatable({ state: "Starting", restarts: 3 }) },
      "Failed: GuestEnded",
    ],
    [
      "the guest had died before",
      { ...at("Done", { ...source("Released"), guestRestarts: 2 }), instance: updatable({ runtimeVersion: "r2", restarts: 2 }) },
      "Succeeded: Updated",
    ],
    ["the instance is gone", { ...at("Done", source("Released")), instance: undefined }, "Succeeded: Updated"],
    ["cancelled too late", { ...cancelled("Done", source("Released")), instance: updated }, "Succeeded: TooLate"],
    ["given up, not cleared away", at("Source", { ...source("GivenUp"), ...noted("AgentIdle") }), "wait: GivingUp"],
    ["given up, to be tried again", at("Source", { ...through, ...noted("AgentIdle") }), "note: Retrying"],
    ["given up for good", at("Source", { ...through, ...noted("Timeout") }), "Failed: Timeout"],
    [
      "given up because the guest ended by itself",
      at("Source", { ...source("GivenUp", { reason: "GuestEnded", retryable: true }), ...target("Released") }),
      "Failed: GuestEnded",
    ],
    ["cancelled", cancelled("Source", { ...through, ...noted("Cancelled") }), "Cancelled: Cancelled"],
    ["stopped meanwhile", at("Source", { ...through, ...noted("InstanceStopped") }), "Cancelled: InstanceStopped"],
    ["given up on a silent node", { ...at("Source", noted("AgentSilent")), source: silent }, "wait: GivingUp"],
    [
      "given up on a node that stays silent",
      { ...at("Source", noted("AgentSilent")), source: silent, ...lasted(2 * MINUTE, "target-silent") },
      "Failed: AgentSilent",
    ],
    ["given up on a node that died", { ...at("Source", noted("NodeDied")), source: fenced }, "Failed: NodeDied"],
  ]);

  it("says what was replaced by what, and the pause", () =>
    expect(planMove(updateFacts({ ...at("Done", source("Released", { pauseMs: 9.4 })), instance: updated })).message).toBe(
      "QEMU was replaced on node n1, from runtime r1 (QEMU 10.0.2) to runtime r2 (QEMU 10.0.13), guest paused 9 ms",
    ));

  it("tells the way out where the claim has no room", () => {
    const words = { reason: "NoRoomInClaim", message: "its claim lacks 30 MiB for a second QEMU", retryable: false };
    const plan = planMove(updateFacts(at("Source", { ...source("GivenUp"), ...target("Released", words) })));
    expect(said(plan)).toBe("Failed: NoRoomInClaim");
    expect(plan.message).toBe(
      "its claim lacks 30 MiB for a second QEMU; move it to another node (a Migration with mode: Live), or restart it (a new spec.restartedAt): it then runs in the current runtime",
    );
  });

  it("leaves the agent's own way out as it is", () => {
    const message =
      "a second QEMU needs 64 MiB in the claim, and 3 MiB are free; move the instance to another node, or restart it";
    const words = { reason: "NoRoomInClaim", message, retryable: false };
    expect(planMove(updateFacts(at("Source", { ...source("GivenUp", words), ...target("Released") }))).message).toBe(message);
  });

  it("is no move of an instance that does not run in that runtime's claim", () =>
    expect(said(planMove(updateFacts({ instance: movedInstance({ guest: undefined }) })))).toBe("wait: InstanceNotRunning"));
});
