import { describe, expect, test } from "vitest";
import { deviceText, mountsBelow } from "./leftovers.ts";

describe("mountsBelow", () => {
  const line = (path: string): string => `30 1 0:1 / ${path} rw - tmpfs x rw`;
  const text = [line("/"), line("/s"), line("/s/a"), line("/s/a/b\\040c"), line("/sx"), ""].join("\n");
  test("the deepest and latest first, the directory itself last, its namesakes not", () => {
    expect(mountsBelow(text, "/s")).toEqual(["/s/a/b c", "/s/a", "/s"]);
  });
});

describe("deviceText", () => {
  test.each([
    [65024, "254:0"],
    [2049, "8:1"],
    [66309, "259:5"],
  ])("%s", (device, text) => expect(deviceText(device)).toBe(text));
});
