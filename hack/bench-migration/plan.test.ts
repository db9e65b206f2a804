import { describe, expect, test } from "vitest";
import { CASES, planFrom, turns } from "./plan.ts";

describe("the plan", () => {
  test("without anything said it is what is published", () => {
    expect(planFrom({})).toMatchObject({ cases: CASES, moves: 20, otherMoves: 5, first: 5, frozen: 10, steady: 60, tls: true });
  });

  test("a short run", () => {
    const plan = planFrom({ MOVES: "3", CASES: "1g-idle", WAYS: "hand,stop", FROZEN: "0" });
    expect(plan).toMatchObject({ moves: 3, otherMoves: 3, first: 3, frozen: 0, steady: 9, ways: ["hand", "stop"] });
    expect(plan.cases.map(({ name }) => name)).toEqual(["1g-idle"]);
  });

  test.each([
    [{ CASES: "3g" }, 'CASES names "3g"; there is 1g-idle, 1g-busy, 2g-idle, 2g-busy'],
    [{ MOVES: "many" }, 'MOVES is "many": give a whole number'],
  ])("%o is refused", (env, message) => {
    expect(() => planFrom(env)).toThrow(message);
  });
});

describe("turns", () => {
  test("who begins changes", () => {
    expect(turns({ ...planFrom({ MOVES: "2" }), ways: ["hand", "drover"] })).toEqual(["hand", "drover", "drover", "hand"]);
  });

  test("rarer ways are spread", () => {
    const all = turns(planFrom({}));
    expect(all.filter((way) => way === "hand")).toHaveLength(20);
    expect(all.filter((way) => way === "libvirt")).toHaveLength(5);
    const first = all.indexOf("stop");
    expect(all.slice(0, first).length).toBeGreaterThan(4);
    expect(all.lastIndexOf("stop")).toBeGreaterThan(all.length - 6);
  });

  test("a way alone", () => {
    expect(turns({ ...planFrom({ OTHER_MOVES: "2" }), ways: ["stop"] })).toEqual(["stop", "stop"]);
    expect(turns({ ...planFrom({ MOVES: "0" }), ways: ["hand"] })).toEqual([]);
  });
});
