import { expect, it } from "vitest";
import { Backoff } from "./backoff.ts";

it("doubles up to its limit, between half and all of the span, and begins anew", () => {
  const [low, high] = [new Backoff({ random: () => 0 }), new Backoff({ random: () => 1 })];
  const take = (backoff: Backoff): number[] => Array.from({ length: 9 }, () => backoff.next());
  expect(take(low)).toEqual([50, 100, 200, 400, 800, 1600, 3200, 4000, 4000]);
  expect(take(high)).toEqual([100, 200, 400, 800, 1600, 3200, 6400, 8000, 8000]);
  low.reset();
  expect(low.next()).toBe(50);
});
