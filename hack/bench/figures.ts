/** What a bench says: figures, and the table of docs/bench.md. Pure. */

export interface Figure {
  value: number;
  unit: string;
  /** What the same thing costs without Drover, or what was reserved for it; null where there is nothing to compare with. */
  baseline: number | null;
  /** value / baseline */
  ratio: number | null;
}

interface Row {
  figure: Figure;
  what: string;
  baselineIs: string;
  /** At most this much. */
  goal?: number;
}

export type Bench = Record<string, Row>;

const round = (value: number): number => Number(value.toPrecision(value >= 100 ? 4 : 3));

export const figure = (value: number, unit: string, baseline?: number): Figure => ({
  value: round(value),
  unit,
  baseline: baseline === undefined ? null : round(baseline),
  ratio: baseline === undefined || baseline === 0 ? null : round(value / baseline),
});

export const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return sorted.length % 2 === 1
    ? (sorted[Math.floor(middle)] ?? Number.NaN)
    : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2;
};

export const missed = (bench: Bench): string[] =>
  Object.entries(bench)
    .filter(
      ([
        ,
        {
          figure: { value },
          goal,
        },
      ]) => goal !== undefined && value > goal,
    )
    .map(([name]) => name);

/** A table in Markdown. */
export const table = (bench: Bench): string =>
  [
    "| figure | value | baseline | goal | what it is |",
    "|---|---|---|---|---|",
    ...Object.entries(bench).map(
      ([
        name,
        {
          figure: { value, unit, baseline },
          what,
          baselineIs,
          goal,
        },
      ]) => {
        const compared = baseline === null ? "-" : `${baseline} ${unit} (${baselineIs})`;
        const wanted = goal === undefined ? "-" : `${value <= goal ? "" : "MISSED: "}<= ${goal} ${unit}`;
        return `| ${name} | ${value} ${unit} | ${compared} | ${wanted} | ${what} |`;
      },
    ),
  ].join("\n");
