import { expect, it } from "vitest";
import { pruneOrder } from "./prune.ts";

const HOUR = 3600_000;

it("deletes what is longest unused first, never what is being made or was used just now", () => {
  const now = 100 * HOUR;
  const images = [
    { name: "yesterday", usedAt: now - 24 * HOUR },
    { name: "just-now", usedAt: now - 1000 },
    { name: "old", usedAt: now - 90 * HOUR },
    { name: "being-made", usedAt: now - 99 * HOUR },
  ];
  expect(pruneOrder(images, new Set(["being-made"]), now)).toEqual(["old", "yesterday"]);
});
