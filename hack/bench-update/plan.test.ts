import { expect, test } from "vitest";
import { CASES, planFrom, turns } from "./plan.ts";

test("without anything said it is what is published", () => {
  expect(planFrom({})).toEqual({ cases: CASES, ways: ["hand", "drover"], updates: 10, floors: 5, fleet: 20 });
});

test("a short run", () => {
  const plan = planFrom({ UPDATES: "2", CASES: "2g-idle", FLEET: "0" });
  expect(plan).toMatchObject({ updates: 2, floors: 1, fleet: 0 });
  expect(plan.cases.map(({ memoryMib }) => memoryMib)).toEqual([2048]);
  expect(turns(plan)).toEqual(["hand", "drover", "drover", "hand"]);
});

test.each([
  [{ CASES: "4g" }, 'CASES names "4g"; there is 512m-idle, 512m-busy, 2g-idle, 2g-busy'],
  [{ FLEET: "all" }, 'FLEET is "all": give a whole number'],
])("%o is refused", (env, message) => {
  expect(() => planFrom(env)).toThrow(message);
});
