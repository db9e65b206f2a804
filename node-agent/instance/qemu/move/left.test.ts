import { expect, test } from "vitest";
import { hasLeft, isSettling } from "./left.ts";

test.each([
  ["completed", "postmigrate", true],
  ["completed", "finish-migrate", true],
  ["device", "finish-migrate", false],
  ["completed", "running", false],
  ["postcopy-active", "finish-migrate", false],
  ["failed", "paused", false],
])("a migration that is %s of a guest that is %s: all of it has left, %s", (migration, status, left) => {
  expect(hasLeft({ status: migration }, { status })).toBe(left);
});

test.each([
  ["completed", "finish-migrate", true],
  ["completed", "postmigrate", false],
  ["completed", "running", false],
  ["device", "finish-migrate", false],
])("a migration that is %s of a guest that is %s: the run state is yet to follow, %s", (migration, status, settling) => {
  expect(isSettling({ status: migration }, { status })).toBe(settling);
});
