import { describe, expect, test } from "vitest";
import { medianOf, ratioOf, seeded, slopeOf, type Point } from "./statistics.ts";

const noisy = (around: number, count: number, random: () => number): number[] =>
  Array.from({ length: count }, () => around * (0.9 + 0.2 * random()));

const inTurn = (values: readonly number[]): Point[] => values.map((value, step) => [step, value]);

describe("medians and their intervals", () => {
  test("one value is what it is", () => {
    expect(medianOf([[7]], seeded(1))).toEqual({ value: 7, low: 7, high: 7 });
  });

  test("cases weigh the same, however often each was measured", () => {
    expect(medianOf([[10], [20, 20, 20, 20]], seeded(1)).value).toBe(15);
  });

  test("the interval holds the median and is narrower with more samples", () => {
    const random = seeded(2);
    const few = medianOf([noisy(100, 5, random)], random);
    const many = medianOf([noisy(100, 200, random)], random);
    expect(few.low).toBeLessThanOrEqual(few.value);
    expect(few.high).toBeGreaterThanOrEqual(few.value);
    expect(many.high - many.low).toBeLessThan(few.high - few.low);
    expect(many.low).toBeLessThan(101);
    expect(many.high).toBeGreaterThan(99);
  });

  test("the same seed gives the same interval", () => {
    const values = noisy(100, 20, seeded(3));
    expect(medianOf([values], seeded(4))).toEqual(medianOf([values], seeded(4)));
  });
});

describe("ratios", () => {
  test("a quarter more is seen as that", () => {
    const random = seeded(5);
    const { value, low, high } = ratioOf([noisy(125, 60, random)], [noisy(100, 60, random)], random);
    expect(value).toBeCloseTo(1.25, 1);
    expect(low).toBeGreaterThan(1.1);
    expect(high).toBeLessThan(1.4);
  });

  test("of cases that are far apart it is that of their levels", () => {
    expect(ratioOf([[110], [1100]], [[100], [1000]], seeded(6)).value).toBeCloseTo(1.1);
  });
});

describe("growth", () => {
  test.each([
    ["none", [5, 5, 5, 5, 5, 5], 0],
    ["steady", [1, 3, 5, 7, 9, 11], 2],
    ["steady but for one that leaps", [1, 3, 5, 900, 9, 11, 13, 15], 2],
    ["of a single value", [4], 0],
  ])("%s", (_, values, expected) => {
    expect(slopeOf(inTurn(values), seeded(7)).value).toBeCloseTo(expected);
  });

  test("noise around a constant has an interval that holds zero", () => {
    const random = seeded(8);
    const { low, high } = slopeOf(inTurn(noisy(100, 50, random)), random);
    expect(low).toBeLessThan(0);
    expect(high).toBeGreaterThan(0);
  });
});
