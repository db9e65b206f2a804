/** From updates to figures: medians with 95 % intervals, and ratios to updates by hand. Pure. */
import { median } from "../bench/figures.ts";
import {
  casesOf,
  compare,
  level,
  missedIn,
  present,
  SEED,
  type Choice as ChoiceOf,
  type Measure,
  type Report,
  type Row,
} from "../bench-migration/compare.ts";
import { medianOf, seeded, type Estimate } from "../bench-migration/statistics.ts";
import { figureTable, WORDS, withInterval } from "../bench-migration/text.ts";
import type { FleetSeen } from "./fleet.ts";
import type { Sample } from "./measure.ts";
import type { Way } from "./plan.ts";

const MIB = 2 ** 20;
const HAND: ChoiceOf<Sample> = { way: "hand" };
const DROVER: ChoiceOf<Sample> = { way: "drover" };
const WAYS: readonly Way[] = ["hand", "drover"];

const pause: Measure<Sample> = (one) => one.pauseMs;
const silence: Measure<Sample> = (one) => one.silenceMs;
const total: Measure<Sample> = (one) => one.totalMs;
const extra: Measure<Sample> = (one) => one.extraBytes / MIB;

interface What {
  name: string;
  of: Measure<Sample>;
  unit: string;
  what: string;
  most?: number;
}

const MEASURES: readonly What[] = [
  { name: "pauseMs", of: pause, unit: "ms", what: "no CPU of the guest ran, by QEMU's own trace", most: 20 },
  { name: "pingSilenceMs", of: silence, unit: "ms", what: "longest time without an answer, seen from another node", most: 80 },
  {
    name: "totalMs",
    of: total,
    unit: "ms",
    what: "from the first command, or the Migration's creation, until nothing is left to do",
  },
  {
    name: "extraMemoryMb",
    of: extra,
    unit: "MiB",
    what: "peak of what is charged to the guest's cgroup, less what was before; page cache left out",
    most: 120,
  },
];

const goalOf = (most: number | undefined): Pick<Row, "goal"> => (most === undefined ? {} : { goal: { of: "value", most } });

const rowsOf = (samples: readonly Sample[], { name, of, unit, what, most }: What): Record<string, Row | undefined> => {
  const whole = { unit, what: `${what}; mean of the cases' medians`, baselineIs: "by hand", ...goalOf(most) };
  const rows: Record<string, Row | undefined> = { [name]: compare(samples, of, DROVER, HAND, whole) };
  for (const one of casesOf(samples)) {
    const cases = [one];
    rows[`${name}.${one}`] = compare(
      samples,
      of,
      { ...DROVER, cases },
      { ...HAND, cases },
      { unit, what: one, baselineIs: "by hand" },
    );
  }
  return rows;
};

/** A figure's ratio as a figure of its own, for a goal of its own. */
const ratioRow = (row: Row | undefined, most: number): Row | undefined =>
  row?.ratio && { unit: "x", value: row.ratio, what: "the pause, against that by hand", goal: { of: "value", most } };

const one = (value: number): Estimate => ({ value, low: value, high: value });

/** What of the silence, and of the growth of memory, is there when nothing is done. */
const floors = (samples: readonly Sample[]): Record<string, Row | undefined> => {
  const row = (of: Measure<Sample>, unit: string, what: string): Row | undefined => {
    const value = level(samples, of, { way: "drover", kind: "floor" });
    return value && { unit, value, what };
  };
  return {
    pingSilenceFloorMs: row(silence, "ms", "the same silence of the same guests while nothing is done to them"),
    extraMemoryFloorMb: row(extra, "MiB", "the same growth while nothing is done"),
  };
};

const fleetRows = (fleet: FleetSeen | undefined): Record<string, Row | undefined> =>
  fleet === undefined
    ? {}
    : {
        fleetSeconds: {
          unit: "s",
          value: one(fleet.seconds),
          what: `a node's ${fleet.guests} guests, by a Rollout with the chart's defaults: from the first update's beginning until the last is seen to run in the new runtime`,
          goal: { of: "value", most: 60 },
        },
        fleetPauseMs: { unit: "ms", value: medianOf([fleet.pauses], seeded(SEED)), what: "their pauses, by Drover's own word" },
      };

export const reportOf = (samples: readonly Sample[], fleet?: FleetSeen): Report => {
  const [pauses = {}, ...others] = MEASURES.map((what) => rowsOf(samples, what));
  return present({
    ...pauses,
    pauseRatio: ratioRow(pauses["pauseMs"], 1.3),
    ...Object.assign({}, ...others),
    ...floors(samples),
    ...fleetRows(fleet),
  });
};

/** Every way in every case. */
export const caseTable = (samples: readonly Sample[]): string => {
  const rows = casesOf(samples).flatMap((name) =>
    WAYS.flatMap((way) => {
      const some = samples.filter((sample) => sample.case === name && sample.way === way);
      const updates = some.filter(({ kind }) => kind === "usual");
      if (updates.length === 0) return [];
      const cells = [pause, silence, total, extra].map((of) => {
        const estimate = level(updates, of, { way });
        return estimate === undefined ? "-" : withInterval(estimate);
      });
      const floor = level(some, silence, { way, kind: "floor" });
      const kept = median(updates.map(({ keptBytes }) => keptBytes / MIB)).toFixed(1);
      return [
        `| ${name} | ${WORDS[way]} | ${updates.length} | ${cells.join(" | ")} | ${kept} | ${floor ? withInterval(floor) : "-"} |`,
      ];
    }),
  );
  const head = "| guest | updated | updates | pause ms | silence ms | total ms | extra MiB | kept MiB | silence, nothing done |";
  return [head, "|---|---|---|---|---|---|---|---|---|", ...rows].join("\n");
};

/** Steps of a kind in their order: the medians of when each was done. */
const stepTable = (samples: readonly Sample[], steps: (sample: Sample) => Sample["course"], from: string): string => {
  const all = (way: Way) => samples.filter((sample) => sample.way === way && sample.kind === "usual").flatMap(steps);
  const marks = [...new Set(WAYS.flatMap((way) => all(way).map(({ mark }) => mark)))];
  const at = (way: Way, mark: string): number => median(all(way).flatMap((step) => (step.mark === mark ? [step.ms] : [])));
  const rows = marks
    .map((mark) => ({ mark, hand: at("hand", mark), drover: at("drover", mark) }))
    .toSorted((a, b) => (Number.isNaN(a.drover) ? a.hand : a.drover) - (Number.isNaN(b.drover) ? b.hand : b.drover));
  const cell = (ms: number): string => (Number.isNaN(ms) ? "-" : ms.toFixed(1));
  return [
    `| step | by hand, ms from ${from} | Drover |`,
    "|---|---|---|",
    ...rows.map(({ mark, hand, drover }) => `| ${mark} | ${cell(hand)} | ${cell(drover)} |`),
  ].join("\n");
};

/** What follows the words of docs/bench-update.md. */
export const document = (report: Report, samples: readonly Sample[]): string => {
  const missed = missedIn(report);
  const parts = [
    missed.length === 0 ? "All goals are met." : `Goals missed: ${missed.join(", ")}.`,
    "## Figures",
    figureTable(report),
    "## Every case",
    caseTable(samples),
    "## The whole update, step by step (medians)",
    stepTable(samples, ({ course }) => course, "the beginning"),
  ];
  if (samples.some(({ timeline = [] }) => timeline.length > 0))
    parts.push(
      "## While the guest stands still, step by step (medians)",
      stepTable(samples, ({ timeline = [] }) => timeline, "the guest's stop"),
    );
  return parts.join("\n\n");
};
