import { describe, expect, it } from "vitest";
import { formatBytes, gibRoundedUp, parseBytes } from "./quantity.ts";

describe("parseBytes", () => {
  it.each([
    ["0", 0],
    ["1024", 1024],
    ["1k", 1000],
    ["64Mi", 64 * 1024 ** 2],
    ["1.5Gi", 1.5 * 1024 ** 3],
    ["2G", 2_000_000_000],
    ["0.1Ki", 103],
    ["4Pi", 4 * 1024 ** 5],
  ])("%s is %d bytes", (text, bytes) => {
    expect(parseBytes(text)).toBe(bytes);
  });

  it.each(["", "Gi", "1gi", "-1", "1e3", "1m", "999999999999Pi"])("refuses '%s'", (text) => {
    expect(() => parseBytes(text)).toThrow(RangeError);
  });
});

describe("gibRoundedUp", () => {
  it.each([
    ["1Mi", 1],
    ["1Gi", 1],
    ["1G", 1],
    ["1025Mi", 2],
    ["40Gi", 40],
  ])("%s takes %d GiB", (text, gib) => {
    expect(gibRoundedUp(parseBytes(text))).toBe(gib);
  });
});

describe("formatBytes", () => {
  it.each([
    [0, "0"],
    [1023, "1023"],
    [1536, "1.5Ki"],
    [8 * 1024 ** 3, "8Gi"],
    [24.7 * 1024 ** 3, "24Gi"],
    [9.99 * 1024 ** 3, "9.9Gi"],
    [3000 * 1024 ** 5, "3000Pi"],
  ])("%d is %s", (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });
});
