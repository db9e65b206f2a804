import { expect, it } from "vitest";
import { isDiskClaimed } from "./disk-room.ts";

it.each([
  ["never placed", undefined, false],
  ["waits for its first place", { name: "c1", serial: 1 }, false],
  ["runs for the first time", { name: "c1", serial: 1, uid: "u1", node: "n1" }, true],
  ["stopped", { name: "c2", serial: 2 }, false],
  ["started again", { name: "c2", serial: 2, uid: "u2", node: "n1" }, false],
])("%s", (_, claim, expected) => {
  expect(isDiskClaimed({ claim })).toBe(expected);
});
