import { expect, test } from "vitest";
import { figure, median, missed, table } from "./figures.ts";

test("a figure is rounded and compared", () => {
  expect(figure(123.456, "ms", 61.7)).toEqual({ value: 123.5, unit: "ms", baseline: 61.7, ratio: 2 });
  expect(figure(0.123_45, "%")).toEqual({ value: 0.123, unit: "%", baseline: null, ratio: null });
  expect(figure(3, "writes", 0).ratio).toBeNull();
});

test.each([
  [[3, 1, 2], 2],
  [[4, 1, 2, 3], 2.5],
])("median of %j", (values, expected) => expect(median(values)).toBe(expected));

test("a goal that is missed is said", () => {
  const bench = {
    good: { figure: figure(1, "ms"), what: "a", baselineIs: "", goal: 1 },
    bad: { figure: figure(2, "ms", 4), what: "b", baselineIs: "alone", goal: 1 },
    open: { figure: figure(9, "ms"), what: "c", baselineIs: "" },
  };
  expect(missed(bench)).toEqual(["bad"]);
  expect(table(bench).split("\n").slice(2)).toEqual([
    "| good | 1 ms | - | <= 1 ms | a |",
    "| bad | 2 ms | 4 ms (alone) | MISSED: <= 1 ms | b |",
    "| open | 9 ms | - | - | c |",
  ]);
});
