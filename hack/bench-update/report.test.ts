import { expect, test } from "vitest";
import { missedIn, verdictOf } from "../bench-migration/compare.ts";
import { figures } from "../bench-migration/text.ts";
import type { Sample } from "./measure.ts";
import type { Way } from "./plan.ts";
import { caseTable, document, reportOf } from "./report.ts";

const MIB = 2 ** 20;

const sample = (way: Way, of: string, pauseMs: number, more: Partial<Sample> = {}): Sample => ({
  way,
  case: of,
  kind: "usual",
  from: "a",
  to: "b",
  pauseMs,
  silenceMs: 4 * pauseMs,
  silentSinceStopMs: -5,
  totalMs: 20 * pauseMs,
  extraBytes: 90 * MIB,
  keptBytes: MIB,
  course: [
    { mark: "over", ms: 20 * pauseMs },
    { mark: "ready", ms: 10 * pauseMs },
  ],
  ...more,
});

const samples = [
  ...[9, 10, 11].map((ms) => sample("hand", "512m-idle", ms)),
  ...[11, 12, 13].map((ms) => sample("drover", "512m-idle", ms, { timeline: [{ mark: "noted", ms: ms / 2 }] })),
  ...[10, 10].map((ms) => sample("hand", "2g-idle", ms)),
  ...[16, 16].map((ms) => sample("drover", "2g-idle", ms)),
  sample("drover", "512m-idle", 0, { kind: "floor", silenceMs: 21, extraBytes: 0 }),
];

test("compares Drover with the hand over all cases, and in each; the floor is apart", () => {
  const report = reportOf(samples);
  expect(report["pauseMs"]).toMatchObject({ value: { value: 14 }, baseline: { value: 10 } });
  expect(report["pauseMs.512m-idle"]?.ratio?.value).toBeCloseTo(1.2);
  expect(report["extraMemoryMb"]).toMatchObject({ value: { value: 90 } });
  expect(report["pingSilenceFloorMs"]).toMatchObject({ value: { value: 21 } });
});

test("a goal for the pause itself, and one against the hand", () => {
  const report = reportOf(samples, { guests: 20, seconds: 61, pauses: [12, 14] });
  expect(report["pauseMs"] && verdictOf(report["pauseMs"])).toBe("met");
  expect(report["pauseRatio"]?.value.value).toBeCloseTo(1.4);
  expect(missedIn(report)).toEqual(["pauseRatio", "fleetSeconds"]);
});

test("what programs read has the names they know", () => {
  expect(Object.keys(figures(reportOf(samples)))).toEqual(
    expect.arrayContaining(["pauseMs", "pingSilenceMs", "totalMs", "extraMemoryMb", "pauseRatio"]),
  );
});

test("what people read has every case and step", () => {
  expect(caseTable(samples)).toContain("| 512m-idle | Drover | 3 | 12 [11-13] |");
  const text = document(reportOf(samples), samples);
  expect(text).toContain("| ready | 100.0 | 130.0 |");
  expect(text).toContain("| noted | - | 6.0 |");
});
