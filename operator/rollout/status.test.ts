import { describe, expect, it } from "vitest";
import type { RolloutStatus } from "../../crds/rollout.ts";
import { rolling, rolloutFacts, rolloutFixture, SINCE } from "./fixtures.ts";
import { planRollout, type RolloutFacts } from "./plan.ts";
import { isAwaited, rolloutEvent, rolloutStatus } from "./status.ts";

const of = (more: Partial<RolloutFacts> = {}): RolloutStatus => {
  const facts = rolloutFacts(more);
  return rolloutStatus(facts, planRollout(facts));
};
const inWords = ({ conditions = [] }: RolloutStatus) =>
  conditions.map(({ type, status, reason }) => `${type}=${status} ${reason}`);
const failed = [{ instance: "team-a/web", migration: "team-a/up", message: "it died", endedAt: "2026-03-01T11:30:00Z" }];

describe("rolloutStatus", () => {
  it("shows progress at a glance", () =>
    expect(of()).toMatchObject({
      phase: "Rolling",
      progress: "1/5",
      updated: 1,
      total: 5,
      failed: 0,
      runtime: "r2",
      since: SINCE,
    }));
  it.each<[string, Partial<RolloutFacts>, string[]]>([
    ["rolls", {}, ["Complete=False Updating", "Stopped=False NotStopped"]],
    ["is complete", { updated: 5 }, ["Complete=True AllUpdated", "Stopped=False NotStopped"]],
    ["was stopped", { failed }, ["Complete=False UpdateFailed", "Stopped=True UpdateFailed"]],
    ["was superseded", { version: undefined, nodes: [] }, ["Complete=False Superseded", "Stopped=False NotStopped"]],
  ])("has conditions when it %s", (_, facts, want) => expect(inWords(of(facts))).toEqual(want));
  it("keeps its last figures when another took its place", () => {
    const rollout = rolloutFixture({ ...rolling, updated: 3, total: 4, runtime: "r2" });
    expect(of({ rollout, version: undefined, nodes: [], updated: 0, total: 0 })).toMatchObject({
      progress: "3/4",
      runtime: "r2",
    });
  });
  it("is the same again", () => {
    const status = of();
    expect(of({ rollout: rolloutFixture(status) })).toEqual(status);
  });
});

describe("what is told", () => {
  it.each<[string, RolloutStatus | undefined, RolloutStatus, string | undefined]>([
    ["it begins", undefined, of(), "Normal Updating"],
    ["a new cluster's first", undefined, of({ updated: 0, total: 0 }), undefined],
    ["one more of many", rolling, of(), undefined],
    ["a failure", rolling, of({ failed }), "Warning UpdateFailed"],
    ["its end", rolling, of({ updated: 5 }), "Normal AllUpdated"],
  ])("%s", (_, before, after, want) => {
    const event = rolloutEvent(before, after);
    expect(event === undefined ? undefined : `${event.type} ${event.reason}`).toBe(want);
  });
  it("a figure that moved is awaited by nobody", () => {
    const [before, after] = [of(), of({ updated: 2 })];
    expect([isAwaited(before, after), isAwaited(before, of({ failed }))]).toEqual([false, true]);
  });
});
