/** Medians that say how sure they are: 95 % intervals by resampling. Pure; randomness is a parameter. */
import { median } from "../bench/figures.ts";

export interface Estimate {
  value: number;
  low: number;
  high: number;
}

const RESAMPLES = 4000;

/** Numbers in [0, 1), the same for the same seed (mulberry32). */
export const seeded = (seed: number): (() => number) => {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
};

const quantile = (sorted: readonly number[], part: number): number => {
  const at = (sorted.length - 1) * part;
  const below = sorted[Math.floor(at)] ?? Number.NaN;
  const above = sorted[Math.ceil(at)] ?? Number.NaN;
  return below + (above - below) * (at - Math.floor(at));
};

const resample = (values: readonly number[], random: () => number): number[] =>
  values.map(() => values[Math.floor(random() * values.length)] ?? Number.NaN);

const mean = (values: readonly number[]): number => values.reduce((sum, one) => sum + one, 0) / values.length;

/** What `of` gives for the samples, and the middle 95 % of what it gives for samples drawn from them. */
const estimate = <S>(samples: S, of: (samples: S) => number, again: (samples: S) => S): Estimate => {
  const drawn = Array.from({ length: RESAMPLES }, () => of(again(samples))).toSorted((a, b) => a - b);
  return { value: of(samples), low: quantile(drawn, 0.025), high: quantile(drawn, 0.975) };
};

/** Samples of each case; cases weigh the same however many samples they have. */
export type Strata = readonly (readonly number[])[];

const level = (strata: Strata): number => mean(strata.map(median));
const resampleEach = (strata: Strata, random: () => number): Strata => strata.map((one) => resample(one, random));

/** Median of a case; of several cases the mean of their medians. */
export const medianOf = (strata: Strata, random: () => number): Estimate =>
  estimate(strata, level, (one) => resampleEach(one, random));

/** Ratio of two such. */
export const ratioOf = (ours: Strata, theirs: Strata, random: () => number): Estimate =>
  estimate(
    [ours, theirs] as const,
    ([a, b]) => level(a) / level(b),
    ([a, b]) => [resampleEach(a, random), resampleEach(b, random)] as const,
  );

export type Point = readonly [x: number, y: number];

const steepness = (points: readonly Point[]): number => {
  const slopes = points.flatMap(([x, y], at) =>
    points.slice(at + 1).flatMap(([x2, y2]) => (x2 === x ? [] : [(y2 - y) / (x2 - x)])),
  );
  return slopes.length === 0 ? 0 : median(slopes);
};

/** Growth of y per x: the median of the slopes between any two points (Theil-Sen), which a few outliers do not bend. */
export const slopeOf = (points: readonly Point[], random: () => number): Estimate => {
  const slopes = Array.from({ length: 400 }, () => {
    const drawn = points.map(() => points[Math.floor(random() * points.length)] ?? ([0, 0] as const));
    return steepness(drawn);
  }).toSorted((a, b) => a - b);
  return { value: steepness(points), low: quantile(slopes, 0.025), high: quantile(slopes, 0.975) };
};
