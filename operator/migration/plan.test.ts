import { describe, expect, it } from "vitest";
import type { Condition } from "../../crds/schema.ts";
import type { MigrationStatus } from "../../crds/migration.ts";
import type { NodeSeen } from "../instance/facts.ts";
import { UID } from "../instance/fixtures.ts";
import {
  factsFixture,
  goodNode,
  guestFixture,
  migrationFixture,
  movedInstance,
  movingStatus,
  nodeFixture,
  NOW,
  targetClaim,
} from "./fixtures.ts";
import { planMove, type MoveFacts, type MovePlan } from "./plan.ts";

const MINUTE = 60_000;
const silent: NodeSeen = { state: "Silent", reason: "NodeNotReady", message: "node n2 is not ready" };
const fenced: NodeSeen = { state: "Fenced", reason: "NodeOutOfService", message: "node n2 was put out of service" };
const condition = (type: string, status: Condition["status"], reason: string, message: string, at = "2026-01-01T00:59:58Z") => ({
  type,
  status,
  reason,
  message,
  lastTransitionTime: at,
});
const noted = (reason: string) => [condition("Progressing", "False", reason, `because of ${reason}`)];

/** A plan in one line: the step, the end, and the reason. */
function said({ step, end, reason }: MovePlan): string {
  const what = {
    nothing: "nothing",
    wait: "wait",
    note: end ?? "note",
    "create-claim": "create-claim",
    "delete-claim": step.do === "delete-claim" ? `delete ${step.claim.uid}` : "",
    "take-label-off": "take-label-off",
    "resize-claim": "resize-claim",
    begin: step.do === "begin" ? `begin ${step.to.attempt}` : "",
    write: step.do === "write" ? `write ${step.to.state}` : "",
  };
  return `${what[step.do]}: ${reason}`;
}

const lastedFor = (ms: number, ...topics: string[]): Pick<MoveFacts, "lasted"> => ({
  lasted: (topic, value) => (value !== undefined && (topics.length === 0 || topics.includes(topic)) ? ms : 0),
});

type Case = [what: string, facts: Partial<MoveFacts>, want: string];
const plans = (cases: Case[]) => it.each(cases)("%s", (_, facts, want) => expect(said(planMove(factsFixture(facts)))).toBe(want));

describe("before its turn", () => {
  const asked = (spec: Parameters<typeof migrationFixture>[1]) => ({ migration: migrationFixture(undefined, spec) });
  plans([
    ["nothing in its way", {}, "note: Scheduling"],
    ["no such instance yet", { instance: undefined }, "wait: InstanceNotFound"],
    ["no such instance for a minute", { instance: undefined, ...lastedFor(MINUTE) }, "Failed: InstanceNotFound"],
    ["cancelled", asked({ cancel: true }), "Cancelled: Cancelled"],
    ["another one is first", { first: migrationFixture(undefined, {}, { name: "web-0" }) }, "wait: WaitingForMigration"],
    [
      "no slot",
      { askTurn: () => ({ granted: false, reason: "WaitingForSlot", message: "waits for a slot" }) },
      "wait: WaitingForSlot",
    ],
    [
      "a slot is waited for as long as it takes",
      {
        askTurn: () => ({ granted: false, reason: "WaitingForSlot", message: "" }),
        ...lastedFor(1e9),
      },
      "wait: WaitingForSlot",
    ],
    ["the source does not answer", { source: silent }, "wait: NodeNotReady"],
    ["the source does not answer for long", { source: silent, ...lastedFor(11 * MINUTE) }, "Failed: NodeNotReady"],
    [
      "the node named is cordoned",
      {
        ...asked({ target: { node: "n2" } }),
        nodeFacts: () => goodNode("n2", { node: nodeFixture("n2", { unschedulable: true }) }),
      },
      "wait: TargetCordoned",
    ],
    [
      "the node named was put out of service",
      { ...asked({ target: { node: "n2" } }), nodeFacts: () => goodNode("n2", { seen: fenced }) },
      "Failed: NodeOutOfService",
    ],
    [
      "the last attempt failed a moment ago",
      {
        migration: migrationFixture({ retries: 1, instanceUid: UID, conditions: noted("DiskFull") }),
        now: Date.parse("2026-01-01T01:00:00Z"),
      },
      "wait: BackingOff",
    ],
    [
      "the last attempt failed some time ago",
      { migration: migrationFixture({ retries: 1, instanceUid: UID, conditions: noted("DiskFull") }), now: NOW + 10_000 },
      "note: Scheduling",
    ],
    ["it has ended", { migration: migrationFixture({ phase: "Failed", reason: "NoRoom" }) }, "nothing: NoRoom"],
  ]);

  it("takes its turn with all that others must know of it", () => {
    const { set, progressing } = planMove(factsFixture());
    expect(set).toMatchObject({ instanceUid: UID, sourceNode: "n1", startedAt: "2026-01-01T01:00:00.000Z" });
    expect(set?.targetClaim?.name).toMatch(/^drover-web-/);
    expect(progressing?.status).toBe("True");
  });

  it("says when the next attempt begins, twice as long after each", () => {
    const after = (retries: number) => {
      const status = { retries, instanceUid: UID, conditions: [condition("Progressing", "False", "DiskFull", "it is full")] };
      return planMove(factsFixture({ migration: migrationFixture(status), now: NOW - 1000 })).message;
    };
    expect(after(1)).toBe("attempt 2 of 4 begins at 01:00:08 UTC; the one before failed: it is full");
    expect(after(3)).toBe("attempt 4 of 4 begins at 01:00:38 UTC; the one before failed: it is full");
  });
});

describe("its claim at the target", () => {
  const turn = (claim?: Parameters<typeof targetClaim>[0], more: Partial<MoveFacts> = {}): Partial<MoveFacts> => ({
    migration: migrationFixture(movingStatus()),
    claim: claim === undefined ? undefined : targetClaim(claim),
    ...more,
  });
  const noRoom = { reason: "Unschedulable", message: "0/3 nodes are available" };
  plans([
    ["is to be made", turn(), "create-claim: Scheduling"],
    ["was refused", turn(undefined, { refused: { reason: "ClaimRefused", message: "no" } }), "wait: ClaimRefused"],
    [
      "was refused for long",
      turn(undefined, { refused: { reason: "ClaimRefused", message: "no" }, ...lastedFor(11 * MINUTE) }),
      "Failed: ClaimRefused",
    ],
    ["is not placed yet", turn({ node: undefined }), "wait: Scheduling"],
    ["finds no room", turn({ node: undefined, unscheduled: noRoom }), "wait: Unschedulable"],
    ["finds no room for long", turn({ node: undefined, unscheduled: noRoom }, lastedFor(11 * MINUTE)), "delete c2: NoRoom"],
    [
      "is let go, then it has ended",
      turn(undefined, { migration: migrationFixture(movingStatus(), { cancel: true }) }),
      "Cancelled: Cancelled",
    ],
    ["was refused by the kubelet", turn({ ended: { reason: "OutOfcpu", message: "none left" } }), "note: Retrying"],
    ["is being deleted", turn({ deleting: true }), "note: Retrying"],
    ["its holder does not run yet", turn({ holderRunning: false }), "begin 1: Preparing"],
    [
      "lies where the guest cannot run",
      turn({}, { nodeFacts: (name) => goodNode(name, { host: undefined }) }),
      "wait: TargetNotReady",
    ],
    [
      "lies where there is no slot",
      turn({}, { askTurn: () => ({ granted: false, reason: "WaitingForSlot", message: "" }) }),
      "wait: WaitingForSlot",
    ],
    ["is there", turn({}), "begin 1: Preparing"],
    [
      "is there, and the user wants it no more",
      turn({}, { migration: migrationFixture(movingStatus(), { cancel: true }) }),
      "delete c2: Cancelled",
    ],
    [
      "is there, and the instance was stopped",
      turn({}, { instance: movedInstance({}, { spec: { power: "Stopped" } }) }),
      "delete c2: InstanceStopped",
    ],
    [
      "is there, and the instance is another one",
      turn({}, { instance: movedInstance({}, { metadata: { uid: "other" } }) }),
      "delete c2: InstanceDeleted",
    ],
    ["one of an attempt before is still there", turn({}, { oldClaims: [targetClaim({ uid: "c0" })] }), "delete c0: Retrying"],
  ]);

  it("begins with all that the agents need", () => {
    const { set, step } = planMove(factsFixture(turn({})));
    expect(step).toMatchObject({ from: undefined, to: { attempt: 1, state: "Copying" } });
    expect(set).toMatchObject({
      sourceNode: "n1",
      targetNode: "n2",
      sourceClaim: { name: "drover-web-1", uid: "c1" },
      targetClaim: { uid: "c2" },
      disks: [{ name: "root", sourcePool: "local", targetPool: "local", copy: true }],
      policy: { maxPauseMs: 300, tls: true },
    });
  });

  it("begins a second attempt though the first's target came back before it could say that it is through", () => {
    const handover = { attempt: 1, state: "Source" as const };
    const source = { attempt: 1, state: "GivenUp" as const };
    const target = { attempt: 1, state: "Ready" as const };
    const migration = migrationFixture({ ...movingStatus(undefined, { retries: 1 }), handover, source, target });
    const claim = targetClaim({ name: migration.status?.targetClaim?.name ?? "" });
    expect(said(planMove(factsFixture({ migration, claim })))).toBe("begin 2: Preparing");
  });

  it("begins a second attempt only once nobody acts for the first", () => {
    const second = (source: "GivenUp" | "CopyingMemory") => {
      const status: MigrationStatus = {
        ...movingStatus(undefined, { retries: 1 }),
        handover: { attempt: 1, state: "Source" },
        source: { attempt: 1, state: source },
        target: { attempt: 1, state: "Released" },
      };
      return said(planMove(factsFixture({ migration: migrationFixture(status), claim: targetClaim() })));
    };
    expect([second("GivenUp"), second("CopyingMemory")]).toEqual(["begin 2: Preparing", "wait: Preparing"]);
  });

  it("tries again without another word what was refused", () => {
    const ready = condition("Ready", "False", "ClaimRefused", "the quota is full");
    const status = { ...movingStatus(), conditions: [ready] };
    const { reason, message } = planMove(factsFixture({ migration: migrationFixture(status) }));
    expect([reason, message]).toEqual(["ClaimRefused", "the quota is full"]);
  });
});

describe("under way", () => {
  const at = (state: "Copying" | "Handover" | "Target", more: Partial<MigrationStatus> = {}, spec = {}): Partial<MoveFacts> => ({
    migration: migrationFixture(movingStatus(state, more), spec),
    claim: targetClaim(),
  });
  const ready = { target: { attempt: 1, state: "Ready" as const } };
  const copying = { ...ready, source: { attempt: 1, state: "CopyingMemory" as const } };
  const completed = { ...ready, source: { attempt: 1, state: "Completed" as const } };
  plans([
    ["the target prepares", at("Copying"), "wait: Preparing"],
    ["the target is ready", at("Copying", ready), "wait: Connecting"],
    ["memory is copied", at("Copying", copying), "wait: CopyingMemory"],
    ["what was said of another attempt is old", at("Copying", { target: { attempt: 0, state: "Ready" } }), "wait: Preparing"],
    ["cancelled", at("Copying", copying, { cancel: true }), "write Source: GivingUp"],
    ["the instance is deleted", { ...at("Copying", copying), instance: undefined }, "write Source: GivingUp"],
    [
      "the instance is stopped",
      { ...at("Copying", copying), instance: movedInstance({}, { spec: { power: "Stopped" } }) },
      "write Source: GivingUp",
    ],
    ["the target's claim is lost", { ...at("Copying", copying), claim: undefined }, "write Source: GivingUp"],
    ["the guest's claim is lost", { ...at("Copying", copying), sourceClaim: undefined }, "write Source: GivingUp"],
    [
      "the target gave up",
      at("Copying", { target: { attempt: 1, state: "GivenUp", reason: "DiskFull" } }),
      "write Source: GivingUp",
    ],
    ["a node is silent for a moment", { ...at("Copying", copying), target: silent }, "wait: CopyingMemory"],
    ["a node is silent", { ...at("Copying", copying), target: silent, ...lastedFor(MINUTE) }, "write Source: GivingUp"],
    ["the target died", { ...at("Copying", copying), target: fenced }, "write Source: GivingUp"],
    [
      "the target's agent does not take it up",
      { ...at("Copying"), ...lastedFor(2 * MINUTE, "TargetIdle") },
      "write Source: GivingUp",
    ],
    [
      "the source's agent does not take it up",
      { ...at("Copying", ready), ...lastedFor(2 * MINUTE, "SourceIdle") },
      "write Source: GivingUp",
    ],
    [
      "copying takes longer than its agent should let it",
      { ...at("Copying", copying), ...lastedFor(66 * MINUTE, "Copying") },
      "write Source: GivingUp",
    ],
    ["switching over", at("Handover", completed), "wait: SwitchingOver"],
    ["switching over, and cancelled", at("Handover", completed, { cancel: true }), "wait: TooLate"],
    ["switching over, and a claim is lost", { ...at("Handover", completed), claim: undefined }, "wait: SwitchingOver"],
    ["the source died in the switchover", { ...at("Handover", completed), source: fenced }, "wait: NeedsDecision"],
    [
      "the source died in the switchover, and the user decided",
      { ...at("Handover", completed, { keep: "Target" }), source: fenced },
      "write Target: Decided",
    ],
    ["a decision that nobody asked for counts for nothing", at("Handover", completed, { keep: "Target" }), "wait: SwitchingOver"],
    ["the target died after it may have run", { ...at("Target", completed), target: fenced }, "wait: NeedsDecision"],
    [
      "the target died, and the source is kept",
      { ...at("Target", completed, { keep: "Source" }), target: fenced },
      "write Source: GivingUp",
    ],
    [
      "the target died, and it is kept",
      { ...at("Target", completed, { keep: "Target" }), target: fenced },
      "wait: WaitingForNode",
    ],
    [
      "the target died, and the instance is deleted",
      { ...at("Target", completed), target: fenced, instance: undefined },
      "write Source: GivingUp",
    ],
  ]);

  it("looks again at the first of its deadlines", () => {
    const facts = { ...at("Copying"), target: silent, ...lastedFor(20_000) };
    expect(planMove(factsFixture(facts)).step).toEqual({ do: "wait", afterMs: 40_001 });
  });

  it("notes why it gave up, with the decision", () => {
    const { progressing, message } = planMove(factsFixture(at("Copying", copying, { cancel: true })));
    expect(progressing).toEqual({ status: "False", reason: "Cancelled", message: "it was cancelled" });
    expect(message).toBe("it is given up: it was cancelled");
  });
});

describe("given up", () => {
  const through = { source: { attempt: 1, state: "GivenUp" as const }, target: { attempt: 1, state: "Released" as const } };
  const over = (reason: string | undefined, more: Partial<MigrationStatus> = through, spec = {}): Partial<MoveFacts> => ({
    migration: migrationFixture(
      movingStatus("Source", { ...(reason === undefined ? {} : { conditions: noted(reason) }), ...more }),
      spec,
    ),
    claim: targetClaim(),
  });
  const gone = { claim: undefined };
  const full = { attempt: 1, state: "Released" as const, reason: "DiskFull", message: "it is full" };
  plans([
    ["neither has cleared away", over("Cancelled", {}, { cancel: true }), "wait: GivingUp"],
    ["the target has not", over("Cancelled", { source: through.source }, { cancel: true }), "wait: GivingUp"],
    ["both have", over("Cancelled", through, { cancel: true }), "delete c2: Cancelled"],
    [
      "both have, and the claim ends",
      { ...over("Cancelled", through, { cancel: true }), claim: targetClaim({ deleting: true }) },
      "wait: Cancelled",
    ],
    ["both have, and the claim has ended", { ...over("Cancelled", through, { cancel: true }), ...gone }, "Cancelled: Cancelled"],
    ["the instance was stopped", { ...over("InstanceStopped"), ...gone }, "Cancelled: InstanceStopped"],
    ["what the operator found can pass", { ...over("TargetIdle"), ...gone }, "note: Retrying"],
    ["what it found cannot", { ...over("Timeout"), ...gone }, "Failed: Timeout"],
    [
      "what an agent said can pass",
      { ...over(undefined, { ...through, target: { ...full, retryable: true } }), ...gone },
      "note: Retrying",
    ],
    ["what an agent said cannot", { ...over(undefined, { ...through, target: full }), ...gone }, "Failed: DiskFull"],
    [
      "the target follows the source",
      {
        ...over(undefined, {
          source: { attempt: 1, state: "GivenUp", reason: "MemoryCopyFailed", retryable: true },
          target: { attempt: 1, state: "Released", reason: "SourceGaveUp", retryable: false },
        }),
        ...gone,
      },
      "note: Retrying",
    ],
    [
      "the target had followed the source, and was noted, before the source had said why",
      {
        ...over("SourceGaveUp", {
          source: { attempt: 1, state: "GivenUp", reason: "MemoryCopyFailed", retryable: true },
          target: { attempt: 1, state: "Released", reason: "SourceGaveUp", retryable: true },
        }),
        ...gone,
      },
      "note: Retrying",
    ],
    [
      "the source gave it up, and was noted; the target came back later, and found a reason of its own",
      {
        ...over("MoveBroken", {
          source: { attempt: 1, state: "GivenUp", reason: "MoveBroken", retryable: true },
          target: { attempt: 1, state: "Released", reason: "TargetDied", retryable: true },
        }),
        ...gone,
      },
      "note: Retrying",
    ],
    ["nobody said why", { ...over(undefined), ...gone }, "note: Retrying"],
    [
      "it was the last attempt",
      {
        ...over("TargetIdle", {
          retries: 3,
          handover: { attempt: 4, state: "Source" },
          source: { attempt: 4, state: "GivenUp" },
          target: { attempt: 4, state: "Released" },
        }),
        ...gone,
      },
      "Failed: TargetIdle",
    ],
    ["it failed, and was cancelled then", { ...over("TargetIdle", through, { cancel: true }), ...gone }, "Cancelled: Cancelled"],
    [
      "a target that is dead need say nothing",
      { ...over("TargetDied", { source: through.source }), target: fenced, ...gone },
      "note: Retrying",
    ],
    [
      "a target that is silent is waited for",
      { ...over("TargetSilent", { source: through.source }), target: silent, ...gone },
      "wait: GivingUp",
    ],
    [
      "a target that is silent for long is not",
      { ...over("TargetSilent", { source: through.source }), target: silent, ...gone, ...lastedFor(2 * MINUTE) },
      "Failed: TargetSilent",
    ],
    [
      "a source that is silent is waited for as long as it takes",
      { ...over("SourceSilent", { target: through.target }), source: silent, ...gone, ...lastedFor(1e9) },
      "wait: GivingUp",
    ],
  ]);

  it("does not note what only follows, for the other has yet to say why", () => {
    const target = { ...full, reason: "SourceGaveUp", retryable: true };
    expect(planMove(factsFixture({ ...over(undefined, { target }), ...gone })).progressing).toBeUndefined();
    expect(planMove(factsFixture({ ...over(undefined, { target: full }), ...gone })).progressing?.reason).toBe("DiskFull");
  });

  it("frees its claim and its turn for the next attempt", () => {
    const { set, progressing } = planMove(factsFixture({ ...over("TargetIdle"), ...gone }));
    expect(set).toEqual({ retries: 1, targetClaim: undefined, targetNode: undefined });
    expect(progressing).toEqual({ status: "False", reason: "TargetIdle", message: "because of TargetIdle" });
  });
});

describe("arrived", () => {
  const released = { source: { attempt: 1, state: "Released" as const, pauseMs: 78.6 } };
  const done = (more: Partial<MigrationStatus> = {}, spec = {}): Partial<MoveFacts> => ({
    migration: migrationFixture(movingStatus("Done", more), spec),
    claim: targetClaim({ labelled: false }),
  });
  const there = movedInstance({ nodeName: "n2", claim: { name: "t", serial: 2, uid: "c2", node: "n2", countsDisks: true } });
  const taken = movedInstance({ ...there.status, guest: { ...guestFixture, claimUid: "c2" } });
  plans([
    ["the instance is not told", done(), "wait: Arriving"],
    ["the claim is still marked", { ...done(), instance: there, claim: targetClaim() }, "take-label-off: Arriving"],
    ["the source clears away", { ...done(), instance: there }, "wait: Releasing"],
    ["the target's agent has not spoken", { ...done(released), instance: there }, "wait: Arriving"],
    ["all is well", { ...done(released), instance: taken }, "Succeeded: Moved"],
    ["all is well, though it was cancelled", { ...done(released, { cancel: true }), instance: taken }, "Succeeded: TooLate"],
    ["the source is dead", { ...done(), instance: taken, source: fenced }, "Succeeded: Moved"],
    ["the target died right after", { ...done(released), instance: there, target: fenced }, "Succeeded: Moved"],
    ["the instance is gone", { ...done(released), instance: undefined }, "Succeeded: Moved"],
    [
      "the instance was started anew there meanwhile",
      {
        ...done(released),
        instance: movedInstance({
          nodeName: "n2",
          claim: { name: "u", serial: 3, uid: "c3", node: "n2" },
          guest: { ...guestFixture, claimUid: "c3" },
        }),
      },
      "Succeeded: Moved",
    ],
  ]);

  it("says what it cost", () => {
    expect(planMove(factsFixture({ ...done(released), instance: taken })).message).toBe(
      "moved from n1 to n2, guest paused 79 ms",
    );
  });
});
