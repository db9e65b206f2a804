import { describe, expect, test } from "vitest";
import { rangeOf } from "./image-server.ts";

describe("rangeOf", () => {
  test.each([
    ["none asked", undefined, undefined],
    ["the beginning", "bytes=0-9", { start: 0, end: 9 }],
    ["from the middle", "bytes=40-", { start: 40, end: 99 }],
    ["past the end", "bytes=40-1000", { start: 40, end: 99 }],
    ["the last bytes", "bytes=-10", { start: 90, end: 99 }],
    ["behind the end", "bytes=100-", "none"],
    ["several, which we do not do", "bytes=0-1,4-5", undefined],
    ["another unit", "lines=0-1", undefined],
  ])("%s", (_, header, range) => expect(rangeOf(header, 100)).toEqual(range));
});
