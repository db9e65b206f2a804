import { describe, expect, it } from "vitest";
import { clockText, parseWindow, windowAt } from "./window.ts";

const at = (time: string): number => Date.parse(`2026-03-01T${time}Z`);
const HOUR = 3_600_000;

describe("windowAt", () => {
  it.each<[string, string, string, string, boolean, number]>([
    ["before it", "10:00", "12:00", "09:00:00", false, HOUR],
    ["at its start", "10:00", "12:00", "10:00:00", true, 2 * HOUR],
    ["in it", "10:00", "12:00", "11:59:59", true, 1000],
    ["at its end", "10:00", "12:00", "12:00:00", false, 22 * HOUR],
    ["after it", "10:00", "12:00", "20:00:00", false, 14 * HOUR],
    ["over midnight, in the evening", "22:00", "04:00", "23:00:00", true, 5 * HOUR],
    ["over midnight, in the morning", "22:00", "04:00", "03:00:00", true, HOUR],
    ["over midnight, by day", "22:00", "04:00", "12:00:00", false, 10 * HOUR],
    ["over midnight, at midnight", "22:00", "04:00", "00:00:00", true, 4 * HOUR],
    ["until midnight", "22:00", "00:00", "23:30:00", true, HOUR / 2],
    ["until midnight, after it", "22:00", "00:00", "00:00:00", false, 22 * HOUR],
  ])("%s", (_, start, end, time, open, changesInMs) =>
    expect(windowAt(parseWindow(start, end), at(time))).toEqual({ open, changesInMs }),
  );
  it("without one it is always open", () => expect(windowAt(undefined, at("12:00:00"))).toEqual({ open: true }));
});

describe("parseWindow", () => {
  it("none of both is none", () => expect(parseWindow("", "")).toBeUndefined());
  it.each([
    ["22:00", "", "window needs both start and end"],
    ["", "22:00", "window needs both start and end"],
    ["24:00", "04:00", "window.start must be a time of day such as 22:00 (UTC), not 24:00"],
    ["22:00", "4:00", "window.end must be a time of day"],
    ["22:00", "22:00", "leave both empty for the whole day"],
  ])("%s to %s", (start, end, says) => expect(() => parseWindow(start, end)).toThrow(says));
  it("is written as it was read", () => expect(clockText(parseWindow("04:05", "22:00")?.start ?? 0)).toBe("04:05"));
});
