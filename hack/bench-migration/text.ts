/** The report as Markdown and as JSON. Pure. */
import { figure, type Figure } from "../bench/figures.ts";
import type { Sample } from "./measure.ts";
import type { Way } from "./plan.ts";
import { casesOf, level, verdictOf, type Report, type Row } from "./compare.ts";
import { courses, pause, sent, silence, switchover, total, type TimelineStep } from "./report.ts";
import type { Estimate } from "./statistics.ts";

const round = (value: number): number => Number(value.toPrecision(Math.abs(value) >= 100 ? 4 : 3));
export const withInterval = ({ value, low, high }: Estimate): string =>
  low === high ? String(round(value)) : `${round(value)} [${round(low)}-${round(high)}]`;

const goalText = (row: Row): string => {
  const { goal } = row;
  if (goal === undefined) return "-";
  const limit = goal.most === undefined ? `>= ${goal.least}` : `<= ${goal.most}`;
  const words = `${{ ratio: "ratio ", low: "interval reaches ", value: "" }[goal.of]}${limit}`;
  return verdictOf(row) === "missed" ? `MISSED: ${words}` : words;
};

const figureRow = ([name, row]: [string, Row]): string => {
  const { unit, value, baseline, ratio, what, baselineIs } = row;
  const compared = baseline === undefined ? "-" : `${withInterval(baseline)} ${unit} (${baselineIs ?? ""})`;
  return `| ${name} | ${withInterval(value)} ${unit} | ${compared} | ${ratio ? withInterval(ratio) : "-"} | ${goalText(row)} | ${what} |`;
};

export const figureTable = (report: Report): string =>
  [
    "| figure | value | compared with | ratio | goal | what it is |",
    "|---|---|---|---|---|---|",
    ...Object.entries(report).map(figureRow),
  ].join("\n");

export const WORDS: Readonly<Record<Way, string>> = {
  hand: "by hand",
  drover: "Drover",
  libvirt: "libvirt",
  stop: "stop and copy",
};

/** Whether the longest silence was over before the guest stopped, or began after it ran again: not the switchover's. */
const isElsewhere = ({ silentSinceStopMs: from, silenceMs, pauseMs }: Sample): boolean => from > pauseMs || from + silenceMs < 0;

/** Every way in every case. */
export const caseTable = (samples: readonly Sample[]): string => {
  const rows = casesOf(samples).flatMap((name) =>
    (Object.keys(WORDS) as Way[]).flatMap((way) => {
      const some = samples.filter((one) => one.case === name && one.way === way && one.kind === "usual");
      if (some.length === 0) return [];
      const cells = [pause, silence, total, sent].map((of) => {
        const estimate = level(some, of, { way });
        return estimate === undefined ? "-" : withInterval(estimate);
      });
      const elsewhere = some.filter(isElsewhere).length;
      return [`| ${name} | ${WORDS[way]} | ${some.length} | ${cells.join(" | ")} | ${elsewhere} |`];
    }),
  );
  const head = "| guest | moved | moves | pause ms | silence ms | total ms | sent MiB | elsewhere |";
  return [head, "|---|---|---|---|---|---|---|---|", ...rows].join("\n");
};

export const timelineTable = (steps: readonly TimelineStep[]): string =>
  [
    "| step | ms from the guest's stop | after the step before |",
    "|---|---|---|",
    ...steps.map(({ mark, ms, stepMs }) => `| ${mark} | ${ms.toFixed(1)} | ${stepMs.toFixed(1)} |`),
  ].join("\n");

/** Whole moves of one case, step by step. */
const courseTable = (samples: readonly Sample[]): string => {
  const cell = (ms: number | undefined): string => (ms === undefined ? "-" : ms.toFixed(0));
  const rows = courses(samples).map(({ mark, hand, drover }) => `| ${mark} | ${cell(hand)} | ${cell(drover)} |`);
  return ["| step | by hand, ms from the beginning | Drover, as a watch shows it |", "|---|---|---|", ...rows].join("\n");
};

/** What follows the words of docs/bench-migration.md. */
export const document = (report: Report, samples: readonly Sample[]): string => {
  const parts = [
    `![silence and total time of each move](bench-migration.svg)`,
    "## Figures",
    figureTable(report),
    "## Every case",
    caseTable(samples),
  ];
  const steps = switchover(samples);
  if (steps.length > 0) parts.push("## The switchover, step by step (Drover, medians)", timelineTable(steps));
  const [first] = casesOf(samples);
  if (first !== undefined)
    parts.push(`## The whole move, step by step (${first}, medians)`, courseTable(samples.filter((one) => one.case === first)));
  return parts.join("\n\n");
};

type Published = Figure & { interval: [number, number]; ratioInterval?: [number, number] };

export const figures = (report: Report): Record<string, Published> =>
  Object.fromEntries(
    Object.entries(report).map(([name, { value, unit, baseline, ratio }]) => {
      const one = figure(value.value, unit, baseline?.value);
      const interval: [number, number] = [round(value.low), round(value.high)];
      return [
        name,
        { ...one, interval, ...(ratio ? { ratioInterval: [round(ratio.low), round(ratio.high)] as [number, number] } : {}) },
      ];
    }),
  );
