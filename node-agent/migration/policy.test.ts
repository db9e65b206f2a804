import { describe, expect, test } from "vitest";
import type { MigrationPolicy } from "../../crds/migration.ts";
import type { MoveCounters } from "../instance/move.ts";
import { decidePolicy, keepSamples, mayThrottle, type PolicyFacts, type Sample } from "./policy.ts";
import { bytesText, percentText, timeText } from "./words.ts";

const MIB = 1024 ** 2;
const policy = { maxPauseMs: 300, onStall: "Throttle", timeoutMs: 600_000, tls: true } as const;

const counters = (rounds: number, remainingMiB: number, dirty: number, rate: number, pauseMs?: number): MoveCounters => ({
  disk: { doneBytes: 0, totalBytes: 0 },
  memory: {
    doneBytes: 0,
    totalBytes: 1024 * MIB,
    remainingBytes: remainingMiB * MIB,
    bytesPerSecond: rate * MIB,
    dirtyBytesPerSecond: dirty * MIB,
    rounds,
  },
  expectedPauseMs: pauseMs,
});

/** One sample a second. */
const samples = (...all: MoveCounters[]): Sample[] => all.map((one, index) => ({ at: index * 1_000, counters: one }));

const facts = (over: Partial<PolicyFacts>): PolicyFacts => ({
  now: 10_000,
  since: 0,
  policy,
  samples: [],
  throttled: false,
  canPostCopy: true,
  ...over,
});

const stuck = samples(
  counters(1, 500, 0, 100, 5_000),
  counters(2, 200, 110, 100, 2_000),
  counters(3, 210, 110, 100, 2_100),
  counters(4, 205, 110, 100, 2_050),
  counters(5, 208, 110, 100, 2_080),
);

describe("decidePolicy", () => {
  test.each<[string, Partial<PolicyFacts>, string]>([
    ["nothing is known yet", {}, "wait"],
    ["the first pass goes on", { samples: samples(counters(1, 4, 0, 100, 40)) }, "wait"],
    ["what is left fits", { samples: samples(counters(2, 20, 5, 100, 200)) }, "switch"],
    ["it fits exactly", { samples: samples(counters(2, 30, 5, 100, 300)) }, "switch"],
    ["it does not fit yet", { samples: samples(counters(2, 50, 5, 100, 301)) }, "wait"],
    ["nobody knows how long it would be", { samples: samples(counters(3, 1, 5, 100)) }, "wait"],
    ["three passes gained nothing", { samples: stuck }, "throttle"],
    ["two passes gained nothing", { samples: stuck.slice(0, 4) }, "wait"],
    ["slowed already", { samples: stuck, throttled: true }, "wait"],
    ["policy says post-copy", { samples: stuck, policy: { ...policy, onStall: "PostCopy" } }, "post-copy"],
    ["post-copy is not possible", { samples: stuck, policy: { ...policy, onStall: "PostCopy" }, canPostCopy: false }, "throttle"],
    ["policy says abort", { samples: stuck, policy: { ...policy, onStall: "Abort" } }, "abort NotConverging"],
    [
      "one pass of the three gained",
      {
        samples: samples(
          counters(2, 400, 110, 100),
          counters(3, 210, 110, 100),
          counters(4, 205, 110, 100),
          counters(5, 208, 110, 100),
        ),
      },
      "wait",
    ],
    [
      "as much is left after each pass, though QEMU counts less writing than sending",
      {
        samples: samples(
          counters(2, 125, 352, 456),
          counters(3, 126, 352, 456),
          counters(4, 124, 352, 456),
          counters(5, 125, 352, 456),
        ),
      },
      "throttle",
    ],
    [
      "much is left, but the wire is faster than the guest",
      {
        samples: samples(
          counters(2, 200, 50, 100),
          counters(3, 200, 50, 100),
          counters(4, 200, 50, 100),
          counters(5, 200, 50, 100),
        ),
      },
      "wait",
    ],
    ["the time is over", { now: 600_000 }, "abort TimedOut"],
    ["the time is over in a stall", { now: 600_000, samples: stuck, throttled: true }, "abort NotConverging"],
    ["the time is over, but it fits", { now: 600_000, samples: samples(counters(2, 20, 5, 100, 200)) }, "switch"],
  ])("%s", (_, over, expected) => {
    const decision = decidePolicy(facts(over));
    expect([decision.do, decision.reason].filter((word) => word !== undefined).join(" ")).toBe(expected);
  });

  test("a stall is said with its figures", () => {
    expect(decidePolicy(facts({ samples: stuck })).stalled).toBe(
      "the guest writes 110MiB/s of its memory while 100MiB/s are sent: 208MiB left after 5 passes, a pause of 2.1s where policy.maxPause allows 300ms; its CPUs are slowed",
    );
  });

  test("by how much the CPUs are slowed is said once QEMU has begun", () => {
    const slowed = (percent: object): Sample[] =>
      stuck.map(({ at, counters: { memory, ...rest } }) => ({ at, counters: { ...rest, memory: { ...memory, ...percent } } }));
    const said = (percent: object) => decidePolicy(facts({ samples: slowed(percent), throttled: true })).stalled;
    expect(said({})).toMatch(/; its CPUs are slowed$/);
    expect(said({ throttlePercent: 51 })).toMatch(/; its CPUs are slowed by 51 %$/);
  });
});

test.each<[MigrationPolicy["onStall"], boolean]>([
  ["Throttle", true],
  ["Throttle", false],
  ["PostCopy", true],
  ["PostCopy", false],
  ["Abort", true],
  ["Abort", false],
])("%s, post-copy %s: only a guest that was said to be slowed, if need be, is", (onStall, canPostCopy) => {
  const { do: what } = decidePolicy(facts({ samples: stuck, policy: { ...policy, onStall }, canPostCopy }));
  expect(mayThrottle({ onStall }, canPostCopy)).toBe(what === "throttle");
});

test("of many samples only those are kept that tell passes apart, and the latest", () => {
  let kept: Sample[] = [];
  for (let at = 0; at < 1_000; at++) kept = keepSamples(kept, { at, counters: counters(1 + Math.floor(at / 50), 100, 1, 1) });
  expect(kept.map(({ at, counters: { memory } }) => [at, memory.rounds])).toEqual([
    [750, 16],
    [800, 17],
    [850, 18],
    [900, 19],
    [950, 20],
    [999, 20],
  ]);
});

test("figures as people read them", () => {
  expect([0, 512, 1536, 12.5 * MIB, 208 * MIB, 1.25 * 1024 * MIB].map(bytesText)).toEqual([
    "0B",
    "512B",
    "1.5KiB",
    "12.5MiB",
    "208MiB",
    "1.25GiB",
  ]);
  expect([0.44, 79.4, 1_234, 200_000].map(timeText)).toEqual(["0.4ms", "79ms", "1.2s", "3m20s"]);
  expect([percentText(0, 0), percentText(999, 1000), percentText(1000, 1000)]).toEqual(["0%", "99%", "100%"]);
});
