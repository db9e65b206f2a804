/** Figures of samples that were taken in several ways and cases: medians with 95 % intervals, ratios, goals. Pure. */
import { medianOf, ratioOf, seeded, type Estimate, type Strata } from "./statistics.ts";

export interface Row {
  unit: string;
  value: Estimate;
  baseline?: Estimate;
  ratio?: Estimate;
  what: string;
  baselineIs?: string;
  /** low: of the value's interval, for what should not be there at all. */
  goal?: { of: "value" | "low" | "ratio"; most?: number; least?: number };
}

export type Report = Record<string, Row>;

export const SEED = 20_261_123;

/** What samples are chosen by. */
export interface Tagged {
  way: string;
  case: string;
  kind: string;
}

export type Measure<S> = (sample: S) => number;

export interface Choice<S extends Tagged> {
  way: S["way"];
  kind?: S["kind"];
  cases?: readonly string[];
}

/** Values of each case that all have been measured in, in the same order. */
const strataOf = <S extends Tagged>(samples: readonly S[], of: Measure<S>, choices: readonly Choice<S>[]): Strata[] => {
  const chosen = choices.map(({ way, kind = "usual", cases }) =>
    samples.filter((one) => one.way === way && one.kind === kind && (cases === undefined || cases.includes(one.case))),
  );
  const names = [...new Set(samples.map((one) => one.case))];
  const shared = names.filter((name) => chosen.every((some) => some.some((one) => one.case === name)));
  return chosen.map((some) => shared.map((name) => some.filter((one) => one.case === name).map(of)));
};

export const casesOf = (samples: readonly Pick<Tagged, "case">[]): string[] => [...new Set(samples.map((one) => one.case))];

/** Median of what was measured, or nothing where nothing was. */
export const level = <S extends Tagged>(samples: readonly S[], of: Measure<S>, choice: Choice<S>): Estimate | undefined => {
  const [strata = []] = strataOf(samples, of, [choice]);
  return strata.length === 0 ? undefined : medianOf(strata, seeded(SEED));
};

/** Ours against theirs; nothing where not both were measured. */
export const compare = <S extends Tagged>(
  samples: readonly S[],
  of: Measure<S>,
  ours: Choice<S>,
  theirs: Choice<S>,
  row: Omit<Row, "value" | "baseline" | "ratio">,
): Row | undefined => {
  const [a = [], b = []] = strataOf(samples, of, [ours, theirs]);
  if (a.length === 0) return undefined;
  const random = seeded(SEED);
  return { ...row, value: medianOf(a, random), baseline: medianOf(b, random), ratio: ratioOf(a, b, random) };
};

export type Verdict = "met" | "missed" | "none";

/** By the value itself; its interval is printed beside it. */
export const verdictOf = ({ goal, value, ratio }: Row): Verdict => {
  const one = goal?.of === "ratio" ? ratio?.value : goal?.of === "low" ? value.low : value.value;
  if (goal === undefined || one === undefined) return "none";
  return one <= (goal.most ?? Number.POSITIVE_INFINITY) && one >= (goal.least ?? Number.NEGATIVE_INFINITY) ? "met" : "missed";
};

/** Names of the figures that miss their goals. */
export const missedIn = (report: Report): string[] =>
  Object.entries(report).flatMap(([name, row]) => (verdictOf(row) === "missed" ? [name] : []));

/** Those of the rows for which there was something to compare. */
export const present = (rows: Record<string, Row | undefined>): Report =>
  Object.fromEntries(Object.entries(rows).flatMap(([name, row]) => (row === undefined ? [] : [[name, row] as const])));
