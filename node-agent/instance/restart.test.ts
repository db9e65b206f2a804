import { expect, test } from "vitest";
import { at, NOW } from "./fixtures.ts";
import { noteStart, restartDecision } from "./restart.ts";
import { NO_NOTE } from "./restart-note.ts";

const crash = { reason: "Crashed", message: "m", at: at(0) } as const;

test.each([
  [0, 5_000],
  [1, 10_000],
  [4, 80_000],
  [9, 300_000],
  [1_000, 300_000],
])("after %d quick restarts the next waits %d ms", (streak, waitMs) => {
  const decision = restartDecision({ exit: crash, policy: "OnFailure", note: { ...NO_NOTE, streak }, now: NOW });
  expect(decision).toEqual({ restart: "after", waitMs });
});

test("a long run begins the count anew; the total goes on", () => {
  const note = { known: true, restarts: 7, streak: 5 };
  expect(noteStart(note, { exit: crash, startedAt: at(-600_000) }, undefined)).toEqual({ known: true, restarts: 8, streak: 0 });
  expect(noteStart(note, { exit: crash, startedAt: at(-599_000) }, undefined)).toEqual({ known: true, restarts: 8, streak: 6 });
});

test("a start that was asked for is no restart, and what asked for it is noted", () => {
  const note = { known: true, restarts: 2, streak: 2, restartedAt: "a" };
  const stopped = { ...crash, reason: "Stopped" } as const;
  expect(noteStart(note, { exit: stopped, startedAt: at(-1_000) }, "b")).toEqual({
    known: true,
    restarts: 2,
    streak: 0,
    restartedAt: "b",
  });
  expect(noteStart(NO_NOTE, { exit: undefined, startedAt: undefined }, undefined)).toEqual({
    known: true,
    restarts: 0,
    streak: 0,
  });
});
