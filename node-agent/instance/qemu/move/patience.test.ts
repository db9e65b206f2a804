import { describe, expect, test } from "vitest";
import { Patience } from "./patience.ts";

/** The pause that is taken of those that are expected one after the other, 100 ms apart; undefined: none of them. */
const taken = (expected: readonly (number | undefined)[], allowedMs = 300): number | undefined => {
  const patience = new Patience();
  return expected.find((each, index) => patience.isOver(index * 100, each, allowedMs));
};

describe("the moment to stop a guest", () => {
  test.each([
    ["what is left becomes less with every pass: a short one is waited for", [600, 290, 140, 48, 40], 48],
    ["it becomes no less: the third is taken", [600, 290, 280, 279, 40], 279],
    ["it becomes less by little: the same", [290, 270, 263], 263],
    ["one pass in between brings nothing: the others do", [290, 200, 210, 120, 45], 45],
    ["it has become more: one about as short as the shortest is waited for", [150, 290, 280, 190, 100], 190],
    ["it has become more than is allowed: that is none of them", [200, 700, 700, 195, 190], 190],
    ["short at once", [45, 30], 45],
    ["short enough: another pass would take longer than it saves", [170, 106, 72, 48, 30], 48],
    ["never within what is allowed", [900, 800, 700], undefined],
    ["nothing is known yet", [undefined, undefined], undefined],
  ])("%s", (_, expected, moment) => expect(taken(expected)).toBe(moment));

  test("it is not waited for long", () => {
    const expected = Array.from({ length: 30 }, (_, pass) => 10_000 * 0.85 ** pass);
    expect(taken(expected, 9_000)).toBe(expected[21]);
  });

  test("a pause that must be shorter than any that is worth waiting for", () => {
    expect(taken([45, 35, 20], 30)).toBe(20);
  });
});
