import { describe, expect, it } from "vitest";
import { formatDuration, parseDuration } from "./duration.ts";

describe("durations", () => {
  it.each([
    ["300ms", 300],
    ["1.5s", 1500],
    ["30m", 1_800_000],
    ["1h30m", 5_400_000],
    ["720h", 2_592_000_000],
  ])("%s is %i ms", (text, ms) => expect(parseDuration(text)).toBe(ms));

  it.each(["", "5", "s", "1 s", "-1s", "1d"])("%j is none", (text) => expect(() => parseDuration(text)).toThrow(RangeError));

  it.each([
    [79.6, "79ms"],
    [1000, "1s"],
    [1550, "1.5s"],
    [90_000, "1m30s"],
    [120_000, "2m"],
    [5_400_000, "1h30m"],
    [7_200_000, "2h"],
  ])("%d ms reads %s", (ms, text) => expect(formatDuration(ms)).toBe(text));
});
