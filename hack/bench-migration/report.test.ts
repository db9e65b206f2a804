import { describe, expect, test } from "vitest";
import type { Sample } from "./measure.ts";
import { picture } from "./picture.ts";
import type { Kind, Way } from "./plan.ts";
import { verdictOf } from "./compare.ts";
import { courses, reportOf, switchover } from "./report.ts";
import { caseTable, figures, figureTable } from "./text.ts";

const sample = (way: Way, of: string, silenceMs: number, more: Partial<Sample> = {}): Sample => ({
  way,
  case: of,
  kind: "usual",
  from: "n1",
  to: "n2",
  pauseMs: silenceMs / 2,
  silenceMs,
  silentSinceStopMs: -5,
  totalMs: silenceMs * 10,
  sentBytes: 2 ** 30,
  agents: { n1: { cpuMs: 300, ownKib: 50_000, heapKib: 20_000 }, n2: { cpuMs: 200, ownKib: 40_000, heapKib: 20_000 } },
  ...more,
});

const of = (kind: Kind): Partial<Sample> => ({ kind });

const samples = [
  ...[100, 110, 120].map((ms) => sample("hand", "1g-idle", ms)),
  ...[110, 121, 132].map((ms) => sample("drover", "1g-idle", ms)),
  ...[200, 200].map((ms) => sample("hand", "1g-busy", ms)),
  ...[300, 300].map((ms) => sample("drover", "1g-busy", ms)),
  sample("libvirt", "1g-idle", 220),
  sample("stop", "1g-idle", 5000),
  sample("hand", "1g-busy", 100, of("frozen")),
  sample("drover", "1g-busy", 140, of("frozen")),
  sample("hand", "1g-idle", 100, of("first")),
  sample("drover", "1g-idle", 105, of("first")),
];

describe("the report", () => {
  const report = reportOf(samples);

  test("compares Drover with the hand over all cases, and in each", () => {
    expect(report["pingSilence"]).toMatchObject({ value: { value: 210.5 }, baseline: { value: 155 } });
    expect(report["pingSilence.1g-idle"]?.ratio?.value).toBeCloseTo(1.1);
    expect(report["pingSilence.1g-busy"]?.ratio?.value).toBeCloseTo(1.5);
  });

  test("compares like with like: only cases that both were measured in, only moves of one kind", () => {
    expect(report["libvirtPingSilence"]).toMatchObject({ value: { value: 220 }, baseline: { value: 110 }, ratio: { value: 2 } });
    expect(report["pingSilenceNorthdFrozen"]?.ratio?.value).toBeCloseTo(1.4);
    expect(report["firstMigrationPingSilence"]?.ratio?.value).toBeCloseTo(1.05);
    expect(report["stopAndCopySilence"]).toMatchObject({ value: { value: 5000 }, baseline: { value: 121 } });
  });

  test("says which goals are missed", () => {
    const verdicts = Object.fromEntries(Object.entries(report).map(([name, row]) => [name, verdictOf(row)]));
    expect(verdicts).toMatchObject({
      pingSilence: "missed",
      pingSilenceNorthdFrozen: "met",
      stopAndCopySilence: "met",
      agentCpuMsPerMove: "met",
      agentMemorySlope: "met",
      "pingSilence.1g-idle": "none",
    });
  });

  test("agents: the busier one, and the one that grows", () => {
    const growing = Array.from({ length: 50 }, (_, at) =>
      sample("drover", "1g-idle", 100, {
        agents: {
          n1: { cpuMs: 10, ownKib: 1000, heapKib: 500 + 10 * at },
          n2: { cpuMs: 450, ownKib: 1000 + 30 * at, heapKib: 500 },
        },
      }),
    );
    const { agentCpuMsPerMove, agentMemorySlope, agentHeapSlope } = reportOf(growing);
    expect(agentCpuMsPerMove?.value.value).toBe(450);
    expect(agentMemorySlope?.value.value).toBeCloseTo(30);
    expect(agentHeapSlope?.value.value).toBeCloseTo(10);
  });

  test("an agent that has compiled what it does, and then keeps what it has, does not grow; one that goes on does", () => {
    const grown = (kib: (at: number) => number) =>
      reportOf(
        Array.from({ length: 80 }, (_, at) =>
          sample("drover", "1g-idle", 100, {
            agents: { n1: { cpuMs: 10, ownKib: kib(at), heapKib: 500 }, n2: { cpuMs: 10, ownKib: 1000, heapKib: 500 } },
          }),
        ),
      ).agentMemorySlope;
    expect(grown((at) => 80_000 + 150 * Math.min(at, 25))?.value.value).toBe(0);
    expect(grown((at) => 80_000 + 20 * at)?.value.low).toBeGreaterThan(0);
  });

  test("memory that is read after some moves only is still told per move", () => {
    const seldom = Array.from({ length: 60 }, (_, at) => {
      const keeps = (ownKib: number) => ({ cpuMs: 10, ...(at % 3 === 0 ? { ownKib, heapKib: 500 } : {}) });
      return sample("drover", "1g-idle", 100, { agents: { n1: keeps(80_000 + 20 * at), n2: keeps(1000), n3: keeps(1000) } });
    });
    const { agentMemorySlope } = reportOf(seldom);
    expect(agentMemorySlope?.value.value).toBeCloseTo(20);
    expect(agentMemorySlope?.what).toContain(`${((80_000 + 20 * 57) / 1024).toFixed(1)} MiB at the end`);
  });

  test("an agent that grows as one does that has no part in the moves does not grow by them", () => {
    const slopes = (kib: (at: number) => number) =>
      reportOf(
        Array.from({ length: 60 }, (_, at) => {
          const keeps = (ownKib: number) => ({ cpuMs: 10, ownKib, heapKib: 500 });
          return sample("drover", "1g-idle", 100, {
            agents: { n1: keeps(kib(at)), n2: keeps(1000), n3: keeps(70_000 + 5 * at) },
          });
        }),
      );
    const { agentMemorySlope, "agentMemorySlopeIdle.n3": idle } = slopes((at) => 80_000 + 5 * at);
    expect(idle?.value.value).toBeCloseTo(5);
    expect(agentMemorySlope?.value.value).toBeCloseTo(0);
    expect(slopes((at) => 80_000 + 25 * at).agentMemorySlope?.value.value).toBeCloseTo(20);
  });

  test("without moves it is empty", () => {
    expect(reportOf([])).toEqual({});
  });

  test("as JSON each figure has what is promised", () => {
    expect(figures(report)["stopAndCopySilence"]).toEqual({
      value: 5000,
      unit: "ms",
      baseline: 121,
      ratio: 41.3,
      interval: [5000, 5000],
      ratioInterval: expect.any(Array),
    });
  });

  test("as tables", () => {
    expect(figureTable(report)).toContain("MISSED: ratio <= 1.15");
    expect(caseTable(samples)).toContain("| 1g-idle | stop and copy | 1 | 2500 | 5000 | 50000 | 1024 | 0 |");
  });
});

test("steps of the switchover in their order, with how long each took", () => {
  const timeline = [
    { mark: "resumed", ms: 60 },
    { mark: "stopped", ms: 0 },
    { mark: "complete", ms: 42 },
  ];
  expect(switchover([{ timeline }, { timeline }, {}])).toEqual([
    { mark: "stopped", ms: 0, stepMs: 0 },
    { mark: "complete", ms: 42, stepMs: 42 },
    { mark: "resumed", ms: 60, stepMs: 18 },
  ]);
});

test("whole moves side by side; a step that only one has is the other's blank", () => {
  const moves = [
    sample("hand", "1g-idle", 1, {
      course: [
        { mark: "ready", ms: 300 },
        { mark: "over", ms: 4000 },
      ],
    }),
    sample("drover", "1g-idle", 1, {
      course: [
        { mark: "accepted", ms: 90 },
        { mark: "ready", ms: 700 },
        { mark: "over", ms: 5000 },
      ],
    }),
  ];
  expect(courses(moves)).toEqual([
    { mark: "accepted", drover: 90 },
    { mark: "ready", hand: 300, drover: 700 },
    { mark: "over", hand: 4000, drover: 5000 },
  ]);
});

describe("the picture", () => {
  const svg = picture(samples);

  test("has a dot for each usual move in each panel, and a label for each way of each case", () => {
    expect(svg.match(/<circle /g)).toHaveLength(2 * 12);
    for (const label of ["1g-idle · by hand", "1g-busy · Drover", "1g-idle · stop and copy"]) expect(svg).toContain(label);
  });

  test("has no number that is none, and closes what it opens", () => {
    expect(svg).not.toMatch(/NaN|Infinity|undefined/);
    expect(svg.match(/<text /g)?.length).toBe(svg.match(/<\/text>/g)?.length);
    expect(picture([])).toContain("</svg>");
  });
});
