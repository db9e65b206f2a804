import { expect, it } from "vitest";
import { FakeClock } from "../../../kube/clock.ts";
import { silentLogger } from "../../../kube/logger.ts";
import type { MoveCounters } from "../../instance/move.ts";
import { MoveMetrics } from "../metrics.ts";
import type { MoveNote } from "../notes.ts";
import { Pause, type TargetRan } from "./pause.ts";

const NOTE = { instance: { uid: "u", name: "web" } } as MoveNote;

const COUNTERS: MoveCounters = {
  disk: { doneBytes: 9, totalBytes: 9 },
  memory: { doneBytes: 90, totalBytes: 100, remainingBytes: 5, bytesPerSecond: 1, dirtyBytesPerSecond: 1, rounds: 2 },
  expectedPauseMs: 1,
  downtimeMs: 17,
};
const RESUMED = [
  { mark: "noted", ms: 4 },
  { mark: "resumed", ms: 9 },
];

/** A pause that begins at 0 ms, with a `go` at each of these times, whose end is heard of at 130 ms. */
async function paused({
  told,
  goes = [20],
  stoppedBefore = false,
}: {
  told?: TargetRan;
  goes?: number[];
  stoppedBefore?: boolean;
}) {
  const clock = new FakeClock();
  const moves = { marks: () => [], counters: () => Promise.resolve(COUNTERS) };
  const parts = { moves, metrics: new MoveMetrics(), clock, log: silentLogger } as never;
  const pause = new Pause(parts, stoppedBefore ? clock.now() : undefined);
  if (!stoppedBefore) {
    pause.allow();
    pause.stopped(clock.now());
  }
  let at = 0;
  for (const next of goes) {
    await clock.advance(next - at);
    at = next;
    pause.mark("go-sent");
  }
  await clock.advance(130 - at);
  pause.ran(told);
  expect(pause.over).toBe(true);
  return pause.figures(NOTE);
}

it.each<[string, Parameters<typeof paused>[0], number]>([
  ["when the guest runs at the target, not when that is heard of", { told: { marks: RESUMED, agoMs: 100 } }, 29],
  ["also where the target's agent does not say how long ago that was", { told: { marks: RESUMED } }, 29],
  [
    "where that agent was replaced and heard of the first `go` not, the last counts",
    { told: { marks: RESUMED, agoMs: 5 }, goes: [20, 115] },
    124,
  ],
  ["where the answer to the first was lost, the first", { told: { marks: RESUMED, agoMs: 100 }, goes: [20, 115] }, 29],
  ["where that agent died after it let the guest run, by the note of that one", { told: { marks: [], agoMs: 95 } }, 35],
  ["and where nothing is said of when, until it is heard of", { told: { marks: [] } }, 130],
  ["also from the record", {}, 130],
  [
    "where this side's agent was replaced meanwhile, the target tells how long ago",
    { told: { marks: RESUMED, agoMs: 60 }, goes: [125], stoppedBefore: true },
    70,
  ],
])("a pause is over %s", async (_, course, ms) => {
  expect(await paused(course)).toMatchObject({ pauseMs: ms, qemuDowntimeMs: 17, progress: "100%" });
});

it("an agent that was not there when it began, and hears of its end from the record, does not know how long it was", async () => {
  const words = await paused({ goes: [], stoppedBefore: true });
  expect(words).toMatchObject({ qemuDowntimeMs: 17, progress: "100%" });
  expect(words).not.toHaveProperty("pauseMs");
});
