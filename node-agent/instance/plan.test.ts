import { describe, expect, test } from "vitest";
import { at, exited, NOW, running, situation } from "./fixtures.ts";
import { planInstance, type Situation, type Step } from "./plan.ts";

const START = "prepare ensure-image ensure-volumes ensure-taps start";
const RELEASE = "remove-taps remove-volumes forget";
const show = (step: Step): string => (step.step === "stop" ? `stop-${step.mode}(${step.deadlineMs / 1000}s)` : step.step);
const alive = { state: "alive" } as const;
const deleting = (inMs: number) => ({ state: "deleting", endsAt: NOW + inMs }) as const;
const stopped = { power: "Stopped", restart: "OnFailure" } as const;
const known = { known: true, restarts: 0, streak: 0 };

interface Row {
  steps?: string;
  during?: string;
  says?: string;
  again?: number;
}

const tables: Record<string, [string, Partial<Situation>, Row][]> = {
  "a claim is there": [
    ["first start", {}, { steps: START, during: "Preparing" }],
    ["it runs", { observed: running() }, { steps: "ensure-taps", says: "Running" }],
    ["it begins to run", { observed: running({ state: "starting" }) }, { steps: "ensure-taps", says: "Starting" }],
    [
      "its monitor is silent: that is no failure",
      { observed: running({ runState: "not-answering" }) },
      { steps: "ensure-taps", says: "Running MonitorSilent" },
    ],
    [
      "its disk failed",
      { observed: running({ state: "paused", runState: "io-error" }) },
      { steps: "ensure-taps", says: "Failed DiskError" },
    ],
    [
      "it sleeps",
      { observed: running({ state: "paused", runState: "suspended" }) },
      { steps: "ensure-taps", says: "Running GuestSuspended" },
    ],
    ["it ran in an earlier claim", { observed: exited({}, { claimUid: "claim-0" }) }, { steps: START, during: "Preparing" }],
    [
      "it still runs in an earlier claim",
      { observed: running({ claimUid: "claim-0" }) },
      { steps: "stop-clean(120s)", during: "Stopping ClaimReplaced" },
    ],
  ],
  "restart policy": [
    ["crashed: says so first", { observed: exited({}) }, { says: "Failed Crashed", again: 4_000 }],
    ["crashed a while ago", { observed: exited({ at: at(-5_000) }) }, { steps: START, during: "Preparing" }],
    [
      "crashed again and again",
      { observed: exited({ at: at(-5_000) }), note: { ...known, restarts: 3, streak: 3 } },
      { says: "Failed Crashed", again: 35_000 },
    ],
    [
      "killed at its memory limit",
      { observed: exited({ reason: "MemoryLimit", message: "the kernel killed it at the memory limit of its claim" }) },
      { says: "Failed MemoryLimit", again: 4_000 },
    ],
    [
      "crashed, Never",
      { observed: exited({ at: at(-60_000) }), spec: { power: "Running", restart: "Never" } },
      { steps: "remove-taps", says: "Failed Crashed" },
    ],
    [
      "shut itself down",
      { observed: exited({ reason: "GuestShutdown", at: at(-60_000) }) },
      { steps: "remove-taps", says: "Stopped GuestShutdown" },
    ],
    [
      "shut itself down, Always",
      { observed: exited({ reason: "GuestShutdown", at: at(-60_000) }), spec: { power: "Running", restart: "Always" } },
      { steps: START, during: "Preparing" },
    ],
    ["ended because it was asked to", { observed: exited({ reason: "Stopped" }) }, { steps: START, during: "Preparing" }],
    [
      "the node was rebooted, Never",
      { observed: exited({ reason: "NodeRestarted" }), spec: { power: "Running", restart: "Never" } },
      { steps: START, during: "Preparing" },
    ],
  ],
  "spec.restartedAt": [
    [
      "changed",
      { observed: running(), note: known, spec: { power: "Running", restart: "OnFailure", restartedAt: "b" } },
      { steps: "stop-clean(120s)", during: "Stopping Restarting" },
    ],
    [
      "acted on",
      {
        observed: running(),
        note: { ...known, restartedAt: "b" },
        spec: { power: "Running", restart: "OnFailure", restartedAt: "b" },
      },
      { steps: "ensure-taps", says: "Running" },
    ],
    [
      "nothing was noted: not to know is no reason to restart",
      { observed: running(), spec: { power: "Running", restart: "OnFailure", restartedAt: "b" } },
      { steps: "ensure-taps", says: "Running" },
    ],
    [
      "changed after it had shut itself down",
      {
        observed: exited({ reason: "GuestShutdown" }),
        note: known,
        spec: { power: "Running", restart: "Never", restartedAt: "b" },
      },
      { steps: START, during: "Preparing" },
    ],
  ],
  "a start that failed": [
    [
      "waits",
      { failure: { stage: "image", reason: "ChecksumMismatch", message: "m", retryAt: NOW + 3_000 } },
      { says: "Preparing ChecksumMismatch", again: 3_000 },
    ],
    [
      "QEMU did not start",
      { failure: { stage: "start", reason: "QemuFailed", message: "m", retryAt: NOW + 3_000 } },
      { says: "Failed QemuFailed", again: 3_000 },
    ],
    [
      "is tried again",
      { failure: { stage: "disks", reason: "PoolFull", message: "m", retryAt: NOW } },
      { steps: START, during: "Preparing PoolFull" },
    ],
  ],
  "power Stopped": [
    ["it runs", { spec: stopped, observed: running() }, { steps: "stop-clean(120s)", during: "Stopping PowerOff" }],
    [
      "it has ended",
      { spec: stopped, observed: exited({ reason: "Stopped" }) },
      { steps: "remove-taps", says: "Stopped PowerOff" },
    ],
    ["it was never started in this claim", { spec: stopped }, { steps: "remove-taps", says: "Stopped PowerOff" }],
    ["no agent was told of a claim", { spec: stopped, claim: undefined }, { steps: "remove-taps" }],
  ],
  "its claim goes": [
    [
      "it runs: the grace period is used",
      { claim: { uid: "claim-1", state: deleting(3_600_000) }, observed: running() },
      { steps: "stop-clean(120s)", during: "Stopping ClaimLost" },
    ],
    [
      "with little of it left",
      { claim: { uid: "claim-1", state: deleting(30_000) }, observed: running() },
      { steps: "stop-clean(25s)", during: "Stopping ClaimLost" },
    ],
    [
      "with none left",
      { claim: { uid: "claim-1", state: deleting(1_000) }, observed: running() },
      { steps: "stop-force(0s)", during: "Stopping ClaimLost" },
    ],
    [
      "shut down cleanly",
      { claim: { uid: "claim-1", state: deleting(30_000) }, observed: exited({ reason: "Stopped" }) },
      { steps: "remove-taps", says: "Stopped ClaimLost" },
    ],
    [
      "the kubelet killed it",
      { claim: { uid: "claim-1", state: { state: "gone" } }, observed: exited({ reason: "Killed" }) },
      { steps: "remove-taps", says: "Failed ClaimLost" },
    ],
    [
      "never started in it: proof is owed all the same",
      { claim: { uid: "claim-1", state: { state: "over", why: "Evicted" } } },
      { steps: "remove-taps", says: "Failed ClaimLost" },
    ],
    [
      "nobody can say: it runs on",
      { claim: { uid: "claim-1", state: { state: "unknown" } }, observed: running() },
      { steps: "ensure-taps", says: "Running" },
    ],
    ["nobody can say: nothing is started", { claim: { uid: "claim-1", state: { state: "unknown" } } }, { again: 5_000 }],
    ["no claim is named: it runs on", { claim: undefined, observed: running() }, { says: "Running" }],
    [
      "no claim is named, and the one it runs in is being deleted",
      { claim: undefined, observed: running(), otherClaim: deleting(30_000) },
      { steps: "stop-clean(25s)", during: "Stopping ClaimLost" },
    ],
    ["no claim, nothing runs", { claim: undefined }, {}],
  ],
  deleted: [
    [
      "it runs",
      { deleting: true, observed: running() },
      { steps: `stop-clean(10s) ${RELEASE}`, during: "Stopping Deleting", says: "Released" },
    ],
    ["nothing was ever made", { deleting: true }, { steps: RELEASE, during: "Stopping Deleting", says: "Released" }],
    ["released and said so", { deleting: true, said: { state: "Released" } }, {}],
    [
      "said so, but something is left",
      { deleting: true, said: { state: "Released" }, observed: exited({}) },
      { steps: RELEASE, during: "Stopping Deleting", says: "Released" },
    ],
  ],
};

describe.each(Object.entries(tables))("%s", (_, rows) => {
  test.each(rows)("%s", (__, over, row) => {
    const plan = planInstance(situation(over));
    const words = ({ state, reason }: typeof plan.after): string => [state, reason].filter(Boolean).join(" ");
    expect({
      steps: plan.steps.map(show).join(" "),
      during: words(plan.during),
      says: words(plan.after),
      again: plan.againMs,
    }).toEqual({ steps: "", during: "", says: "", again: undefined, ...row });
  });
});

test("what is said of a wait is not counted down", () => {
  const first = planInstance(situation({ observed: exited({}) }));
  const said = { state: "Failed", reason: "Crashed", message: first.after.message, claimUid: "claim-1" } as const;
  const second = planInstance(situation({ observed: exited({}), said, now: NOW + 2_000 }));
  expect(first.after.message).toBe("QEMU ended; it is started again in 4 s");
  expect(second.after.message).toBe(first.after.message);
  expect(second.againMs).toBe(2_000);
});

test("a claim that is alive for one guest alone is named in every word about it", () => {
  for (const observed of [running(), exited({})]) {
    expect(planInstance(situation({ observed, claim: { uid: "claim-1", state: alive } })).after.claimUid).toBe("claim-1");
  }
});
