import { expect, test } from "vitest";
import { divide } from "./limits.ts";
import { UNLIMITED } from "./names.ts";

test.each([
  ["no limit", undefined, { mirrors: 2, memory: true }, { memory: UNLIMITED, mirror: 0 }],
  ["no disks: all for memory", 100, { mirrors: 0, memory: true }, { memory: 100, mirror: 0 }],
  ["disks alone share it", 100, { mirrors: 3, memory: false }, { memory: 100, mirror: 33 }],
  ["disks in step keep a quarter", 100, { mirrors: 2, memory: true }, { memory: 75, mirror: 12 }],
  ["never nothing, which would mean no limit", 1, { mirrors: 9, memory: true }, { memory: 1, mirror: 1 }],
])("%s", (_, limit, now, shares) => {
  expect(divide(limit, now)).toEqual(shares);
});
