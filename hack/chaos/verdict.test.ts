import { describe, expect, test } from "vitest";
import {
  mostRunning,
  pauseOfMove,
  pauseProblem,
  pauses,
  runChanges,
  runningNow,
  runsOf,
  tables,
  type RunChange,
} from "./verdict.ts";

const change = (at: number, qemu: string, running: boolean): RunChange => ({ at, qemu, running });

test("QEMU's trace is read between its other words", () => {
  const log = [
    "24058@1795475167.558634:vm_state_notify running 1 reason 9 (running)",
    "2026-11-23T23:00:00.000000Z qemu-system-x86_64: warning: something",
    "24061@1795475168.444806:vm_state_notify running 0 reason 4 (paused)",
  ].join("\n");
  // Whichever thread said it.
  expect(runChanges(log, "n1/7")).toEqual([change(1795475167558.634, "n1/7", true), change(1795475168444.806, "n1/7", false)]);
});

describe("the most copies that ran at one moment", () => {
  const cases: [string, RunChange[], Map<string, number>, number][] = [
    ["nobody ran", [], new Map(), 0],
    ["a move as it should be", [change(1, "a", true), change(5, "a", false), change(6, "b", true)], new Map(), 1],
    ["a double start", [change(1, "a", true), change(6, "b", true), change(7, "a", false)], new Map(), 2],
    ["the source was killed before the target began", [change(1, "a", true), change(6, "b", true)], new Map([["a", 4]]), 1],
    ["the source was killed too late", [change(1, "a", true), change(6, "b", true)], new Map([["a", 8]]), 2],
    ["in the same moment", [change(1, "a", true), change(5, "b", true), change(5, "a", false)], new Map(), 1],
  ];
  test.each(cases)("%s", (_, changes, ends, most) => expect(mostRunning(changes, ends)).toBe(most));
});

test("who runs in the end is who said so last", () => {
  expect(runningNow([change(1, "a", true), change(6, "b", true), change(5, "a", false)])).toEqual(["b"]);
  expect(runningNow([change(1, "a", true), change(6, "b", true)])).toEqual(["a", "b"]);
});

test("who ran when is told from the first change on", () => {
  expect(runsOf([change(105, "b", true), change(100, "a", true)])).toBe("0.0 a runs, 5.0 b runs");
  expect(runsOf([change(100, "a", true)], new Map([["a", 107]]))).toBe("0.0 a runs, 7.0 a stops");
});

test("a pause is the time in which nobody ran", () => {
  expect(pauses([change(1, "a", true), change(5, "a", false), change(65, "b", true)])).toEqual([60]);
});

test("the pause of a move is the last one after which another QEMU runs", () => {
  const left = [
    change(1, "a", true),
    change(5, "a", false),
    change(65, "a", true),
    change(70, "a", false),
    change(95, "b", true),
  ];
  expect(pauseOfMove(left)).toBe(25);
  expect(pauseOfMove([...left, change(100, "b", false), change(110, "b", true)])).toBe(25);
  expect(pauseOfMove(left.slice(0, 3))).toBeUndefined();
});

test.each<[string, number | undefined, boolean, string | undefined]>([
  ["what is told is true", 60, false, undefined],
  ["it is off by less than an agent takes to come back", 520, false, undefined],
  ["it holds an agent's restart", 6698, true, "the move tells a pause of 6698 ms, by the QEMUs it was 25"],
  ["it is told by nobody", undefined, false, "the move tells no pause, by the QEMUs it was 25"],
  ["who knew it is gone", undefined, true, undefined],
])("the told pause is judged: %s", (_, told, mayBeUnknown, problem) => {
  const moved = [change(1, "a", true), change(70, "a", false), change(95, "b", true)];
  expect(pauseProblem(told, moved, mayBeUnknown)).toBe(problem);
});

test("the table says what was not tried", () => {
  const one = {
    phase: "CopyingDisk",
    fault: "none",
    outcome: "Succeeded",
    recordsLost: 0,
    maxRunningCopies: 1,
    leftovers: [],
    ok: true,
    seconds: 3,
  };
  const other = { ...one, phase: "Preparing", fault: "agent", ok: false, why: "two ran" };
  expect(tables([one, other])).toContain("| agent | - | **BAD** Succeeded: two ran \\* |");
  expect(tables([one, { ...other, commit: "abc" }])).toContain("1 on an earlier commit, 1 on abc");
});
