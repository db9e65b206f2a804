import { describe, expect, it } from "vitest";
import type { InstanceStatus } from "../../crds/instance.ts";
import type { Migration, MigrationStatus } from "../../crds/migration.ts";
import { CLAIM, moveFixture, NOW, settled } from "./fixtures.ts";
import { planDrain, type DrainFacts } from "./plan.ts";

const seconds = (n: number): number => n * 1000;
const base: DrainFacts = {
  instance: settled(),
  claim: { uid: CLAIM, node: "n1", deleting: false },
  asked: { first: NOW, last: NOW },
  moves: [],
  node: { state: "Answering" },
  now: NOW,
  deadlineMs: 30 * 60_000,
};
const condition = (type: string, status: "True" | "False", message: string): InstanceStatus["conditions"] => [
  { type, status, reason: "Because", message, lastTransitionTime: "2026-06-01T11:00:00Z", observedGeneration: 1 },
];
const failedAt = (ms: number, name = "drain-web-1", phase: "Failed" | "Cancelled" = "Failed") =>
  moveFixture(name, { phase, endedAt: new Date(NOW - ms).toISOString(), reason: "LinkLost" }, { drain: CLAIM });
const update = (status: MigrationStatus): Migration => {
  const move = moveFixture("up", status);
  return { ...move, spec: { ...move.spec, mode: "InPlace" } };
};
const unfit = {
  ...settled(),
  status: { ...settled().status, conditions: condition("Migratable", "False", "vf0 is passed through") },
};

const text = (facts: Partial<DrainFacts>): string | undefined => {
  const plan = planDrain({ ...base, ...facts });
  if (plan === undefined) return undefined;
  const flags = [plan.stuck && "stuck", plan.overdue && "overdue"].filter(Boolean).join(" ");
  return `${plan.step.do} ${plan.reason}${flags === "" ? "" : ` ${flags}`}`;
};

describe.each<[string, Partial<DrainFacts>, string | undefined]>([
  ["a guest that runs is moved", {}, "move Moving"],
  ["nobody asks any more", { asked: { first: NOW - seconds(90), last: NOW - seconds(61) } }, undefined],
  ["a guest that starts is waited for", { instance: settled({ guest: { state: "Starting" } }) }, "wait WaitingForGuest"],
  ["one that no agent has taken up", { instance: settled({ guest: null }) }, "wait WaitingForGuest"],
  ["one that is made ready", { instance: settled({ guest: { state: "Preparing" } }) }, "wait WaitingForGuest"],
  [
    "one whose image does not come",
    { instance: settled({ guest: { state: "Preparing", reason: "ImageNotFound", message: "404" } }) },
    "stop NotStarted",
  ],
  ["one that has ended by itself", { instance: settled({ guest: { state: "Stopped" } }) }, "stop NotRunning"],
  ["one that crashed", { instance: settled({ guest: { state: "Failed", reason: "Crashed" } }) }, "stop NotRunning"],
  [
    "one that is halted keeps its memory",
    { instance: settled({ guest: { state: "Failed", reason: "DiskError", message: "no room" } }) },
    "wait GuestHalted stuck",
  ],
  ["onDrain Stop", { instance: settled({ spec: { onDrain: "Stop" } }) }, "stop Stopping"],
  [
    "onDrain Stop, nobody asks any more",
    { instance: settled({ spec: { onDrain: "Stop" } }), asked: { first: 0, last: NOW - seconds(70) } },
    undefined,
  ],
  ["onDrain Refuse", { instance: settled({ spec: { onDrain: "Refuse" } }) }, "wait OnDrainRefuse stuck"],
  ["power off is under way", { instance: settled({ spec: { power: "Stopped" } }) }, "wait PoweringOff"],
  ["a deletion is under way", { instance: settled({ deleting: true }) }, "wait Deleting"],
  ["its claim is being deleted", { claim: { uid: CLAIM, node: "n1", deleting: true } }, "wait Stopping"],
  ["not migratable", { instance: unfit }, "wait NotMigratable stuck"],
  ["its node is silent", { node: { state: "Silent", reason: "AgentSilent", message: "silent" } }, "wait AgentSilent stuck"],
  ["a move is under way", { moves: [moveFixture("mine", { phase: "CopyingMemory", targetNode: "n2" })] }, "wait Moving"],
  ["a move waits", { moves: [moveFixture("mine", { phase: "Pending" })] }, "wait MoveWaits"],
  ["a move that nobody has looked at", { moves: [moveFixture("mine", undefined)] }, "wait MoveWaits"],
  [
    "a move goes on when nobody asks any more",
    { moves: [moveFixture("mine", { phase: "CopyingDisk" })], asked: { first: 0, last: NOW - seconds(70) } },
    "wait Moving overdue",
  ],
  [
    "onDrain Stop while a user moves it",
    { instance: settled({ spec: { onDrain: "Stop" } }), moves: [moveFixture("mine", {})] },
    "wait MoveWaits",
  ],
  ["its QEMU is being replaced", { moves: [update({ phase: "Preparing", targetClaim: { name: "c" } })] }, "wait Updating"],
  [
    "its QEMU is being replaced, and it is shut down by drains",
    { instance: settled({ spec: { onDrain: "Stop" } }), moves: [update({ phase: "Preparing", targetClaim: { name: "c" } })] },
    "wait Updating",
  ],
  ["a replacement that has not begun lets the move go first", { moves: [update({ phase: "Pending" })] }, "move Moving"],
  ["a replacement that has ended is no reason to wait", { moves: [update({ phase: "Failed" })] }, "move Moving"],
  [
    "its QEMU is being replaced, and nobody asks any more",
    { moves: [update({ phase: "Preparing", targetClaim: { name: "c" } })], asked: { first: 0, last: NOW - seconds(70) } },
    undefined,
  ],
  ["a move of a user that failed is no reason to wait", { moves: [moveFixture("mine", { phase: "Failed" })] }, "move Moving"],
  ["its own move has just failed", { moves: [failedAt(seconds(9))] }, "wait MoveFailed stuck"],
  ["and is tried again after 10 s", { moves: [failedAt(seconds(10))] }, "move MoveFailed stuck"],
  ["a cancelled one too", { moves: [failedAt(seconds(10), "drain-web-1", "Cancelled")] }, "move MoveFailed stuck"],
  ["the third time after 40 s", { moves: ["a", "b", "c"].map((name) => failedAt(seconds(39), name)) }, "wait MoveFailed stuck"],
  ["and then", { moves: ["a", "b", "c"].map((name) => failedAt(seconds(40), name)) }, "move MoveFailed stuck"],
  [
    "one that failed in another claim does not count",
    { moves: [moveFixture("x", { phase: "Failed", endedAt: new Date(NOW).toISOString() }, { drain: "another" })] },
    "move Moving",
  ],
  ["past its deadline", { instance: unfit, asked: { first: NOW - 30 * 60_000, last: NOW } }, "wait NotMigratable stuck overdue"],
])("%s", (_, facts, expected) => {
  it("is planned so", () => expect(text(facts)).toBe(expected));
});

describe("what is said", () => {
  const message = (facts: Partial<DrainFacts>) => planDrain({ ...base, ...facts })?.message;

  it("names the reason and what to change", () => {
    expect(message({ instance: unfit })).toBe(
      "cannot be moved while it runs: vf0 is passed through; stop it (spec.power: Stopped), or have it shut down (spec.onDrain: Stop)",
    );
    expect(message({ moves: [failedAt(seconds(1))] })).toBe(
      "could not be moved to another node yet: Migration drain-web-1 failed: LinkLost; it is tried again",
    );
    expect(message({ asked: { first: NOW - 45 * 60_000, last: NOW } })).toBe(
      "is moved to another node first; it has been asked to leave for 45 min, longer than drain.deadline: stop it (spec.power: Stopped), or have it shut down (spec.onDrain: Stop)",
    );
  });

  it("tells how far a move is, apart from what does not change", () => {
    const move = moveFixture("mine", {
      phase: "CopyingMemory",
      targetNode: "n2",
      source: { attempt: 1, state: "CopyingMemory", progress: "43 %" },
    });
    const plan = planDrain({ ...base, moves: [move] });
    expect(plan?.message).toBe("is moved to another node first: Migration mine moves it to n2");
    expect(plan?.progress).toBe("CopyingMemory 43 %");
  });

  it("gives a waiting move's own words", () => {
    const conditions = condition("Ready", "False", "waiting for a slot on node n1");
    const move = moveFixture("mine", { phase: "Pending", reason: "Because", conditions });
    expect(message({ moves: [move] })).toContain("Migration mine: waiting for a slot on node n1");
  });
});

it("is looked at again when time alone changes it", () => {
  expect(planDrain(base)?.recheckMs).toBe(60_000);
  expect(planDrain({ ...base, asked: { first: NOW - 50_000, last: NOW - 50_000 } })?.recheckMs).toBe(10_000);
  expect(planDrain({ ...base, moves: [failedAt(seconds(4))] })?.recheckMs).toBe(6_000);
});
