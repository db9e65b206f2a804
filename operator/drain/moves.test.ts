import { describe, expect, it } from "vitest";
import { CLAIM, moveFixture, settled } from "./fixtures.ts";
import { drainMigration, failedMoves } from "./moves.ts";

describe("a drain's Migration", () => {
  it("has the same name when it is made again, another one after a failure", () => {
    const failed = moveFixture("a", { phase: "Failed", endedAt: "2026-06-01T11:30:00Z" }, { drain: CLAIM });
    const [one, same, next] = [[], [], [failed]].map((before) => drainMigration(settled(), CLAIM, before));
    expect(one?.metadata.name).toMatch(/^drain-web-[0-9a-f]{8}$/);
    expect(same?.metadata.name).toBe(one?.metadata.name);
    expect(next?.metadata.name).not.toBe(one?.metadata.name);
    expect(one?.spec).toEqual({ instance: "web", priority: "Drain" });
  });

  it("is known by its label and its priority, the last failure first", () => {
    const moves = [
      moveFixture("early", { phase: "Failed", endedAt: "2026-06-01T11:10:00Z" }, { drain: CLAIM }),
      moveFixture("late", { phase: "Cancelled", endedAt: "2026-06-01T11:50:00Z" }, { drain: CLAIM }),
      moveFixture("worked", { phase: "Succeeded" }, { drain: CLAIM }),
      moveFixture("users", { phase: "Failed" }, { drain: CLAIM, priority: "User" }),
      moveFixture("other", { phase: "Failed" }, { drain: "another" }),
    ];
    expect(failedMoves(moves, CLAIM).map(({ metadata }) => metadata.name)).toEqual(["late", "early"]);
  });
});
