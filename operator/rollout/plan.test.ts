import { describe, expect, it } from "vitest";
import type { RolloutStatus } from "../../crds/rollout.ts";
import { NOW, ready, rolling, rolloutFacts, rolloutFixture, rolloutNode, SINCE } from "./fixtures.ts";
import { planRollout, type ActiveUpdate, type FailedUpdate, type RolloutFacts } from "./plan.ts";
import { runtimeUpdateSettings } from "./settings.ts";
import type { Outdated } from "./update.ts";

const settings = (values: object) => runtimeUpdateSettings(JSON.stringify({ perNode: 1, ...values }));
const night = { window: { start: "22:00", end: "04:00" } };
const noon = { window: { start: "11:30", end: "12:30" } };
const update = (node: string, begun = true): ActiveUpdate => ({
  key: { namespace: "team-a", name: `update-${node}` },
  node,
  begun,
});
const failure = (endedAt: string): FailedUpdate => ({
  instance: "team-a/web",
  migration: "team-a/update-web-1",
  message: "the new QEMU died",
  endedAt,
});
const left: Outdated = { state: "left", why: "huge pages" };
const busy: Outdated = { state: "busy" };
const failed: Outdated = { state: "failed", why: "the new QEMU died" };
const stopped: RolloutStatus = { phase: "Stopped", reason: "UpdateFailed", message: "as it was said", since: SINCE };
const as = (status: RolloutStatus | undefined, spec = {}) => ({ rollout: rolloutFixture(status, spec) });
const nodes = (n1: Outdated[], n2: Outdated[] = []) => ({ nodes: [rolloutNode("n1", n1), rolloutNode("n2", n2)] });

/** A plan in one line. */
function said(facts: Partial<RolloutFacts>): string {
  const { phase, reason, make, withdraw } = planRollout(rolloutFacts(facts));
  const names = (keys: readonly { name: string }[], what: string) =>
    keys.length === 0 ? "" : ` ${what} ${keys.map(({ name }) => name).join(" ")}`;
  return `${phase} ${reason}${names(make, "make")}${names(withdraw, "withdraw")}`;
}

describe("planRollout", () => {
  it.each<[string, Partial<RolloutFacts>, string]>([
    ["a new one: as many of each node as there are slots", as(undefined), "Rolling Updating make n1-0 n2-0"],
    ["more of each node", { settings: settings({ perNode: 2 }) }, "Rolling Updating make n1-0 n1-1 n2-0 n2-1"],
    ["no more than in all", { settings: settings({ perNode: 2, perCluster: 3 }) }, "Rolling Updating make n1-0 n1-1 n2-0"],
    ["one after the other", { settings: settings({ perCluster: 1 }) }, "Rolling Updating make n1-0"],
    ["a slot of a node is taken", { active: [update("n1")] }, "Rolling Updating make n2-0"],
    ["all slots are taken", { active: [update("n1"), update("n2")] }, "Rolling Updating"],
    ["all of the cluster's are taken", { active: [update("n3")], settings: settings({ perCluster: 1 }) }, "Rolling Updating"],
    ["all are updated", { updated: 5, nodes: [] }, "Complete AllUpdated"],
    ["there is none", { updated: 0, total: 0, nodes: [], ...as(undefined) }, "Complete AllUpdated"],
    ["all are updated, and one is being cleared away", { updated: 5, nodes: [], active: [update("n1")] }, "Rolling Updating"],
    ["nothing can be done about the rest", nodes([left], [left, left]), "Complete NothingLeft"],
    ["the rest is busy", nodes([left, busy], [left]), "Waiting Held"],
    ["the rest is on a node that says nothing", { nodes: [rolloutNode("n1", [ready, ready], false)] }, "Waiting Held"],
    ["what cannot be, is busy, or was cancelled is passed over", nodes([left, busy, ready]), "Rolling Updating make n1-2"],
    [
      "a node that says nothing is passed over",
      { nodes: [rolloutNode("n1", [ready], false), rolloutNode("n2", [ready])] },
      "Rolling Updating make n2-0",
    ],
    ["paused", as(rolling, { paused: true }), "Waiting Paused"],
    [
      "paused, with one under way and one that is not",
      { ...as(rolling, { paused: true }), active: [update("n1"), update("n2", false)] },
      "Waiting Paused withdraw update-n2",
    ],
    ["paused, and all are updated", { ...as(rolling, { paused: true }), updated: 5, nodes: [] }, "Complete AllUpdated"],
    ["paused, and nothing can be done", { ...as(rolling, { paused: true }), ...nodes([left]) }, "Complete NothingLeft"],
    [
      "no longer paused",
      as({ ...rolling, phase: "Waiting", reason: "Paused" }, { paused: false }),
      "Rolling Updating make n1-0 n2-0",
    ],
    ["left to people", { settings: settings({ mode: "Manual" }) }, "Waiting Manual"],
    ["left to people, who are through", { settings: settings({ mode: "Manual" }), updated: 5, nodes: [] }, "Complete AllUpdated"],
    ["in its window", { settings: settings(noon) }, "Rolling Updating make n1-0 n2-0"],
    [
      "outside its window",
      { settings: settings(night), active: [update("n2", false)] },
      "Waiting WindowClosed withdraw update-n2",
    ],
    ["one failed", { failed: [failure("2026-03-01T11:30:00.123Z")] }, "Stopped UpdateFailed"],
    [
      "one failed, with others under way",
      { failed: [failure("2026-03-01T11:30:00.123Z")], active: [update("n1"), update("n2", false)] },
      "Stopped UpdateFailed withdraw update-n2",
    ],
    ["one failed before it went on", { failed: [failure("2026-03-01T10:59:59Z")] }, "Rolling Updating make n1-0 n2-0"],
    [
      "one failed before it was made",
      { failed: [failure("2026-03-01T09:59:59Z")], ...as(undefined) },
      "Rolling Updating make n1-0 n2-0",
    ],
    ["one failed, and its Migration is gone", nodes([failed, ready]), "Stopped UpdateFailed"],
    ["stopped, and the Migration is gone", as(stopped), "Stopped UpdateFailed"],
    ["stopped, and paused", as(stopped, { paused: true }), "Stopped UpdateFailed"],
    ["stopped, and all were updated otherwise", { ...as(stopped), updated: 5, nodes: [] }, "Complete AllUpdated"],
    [
      "resumed",
      { ...as(stopped, { resumedAt: "now" }), failed: [failure("2026-03-01T11:30:00Z")] },
      "Rolling Updating make n1-0 n2-0",
    ],
    ["resumed long ago", as({ ...stopped, resumedAt: "then" }, { resumedAt: "then" }), "Stopped UpdateFailed"],
    ["resumed outside its window", { ...as(stopped, { resumedAt: "now" }), settings: settings(night) }, "Waiting WindowClosed"],
    ["another took its place", { version: undefined, nodes: [] }, "Stopped Superseded"],
    [
      "another took its place when it was complete",
      { version: undefined, nodes: [], ...as({ phase: "Complete", reason: "AllUpdated" }) },
      "Complete AllUpdated",
    ],
    ["current again", as({ ...rolling, phase: "Stopped", reason: "Superseded" }), "Rolling Updating make n1-0 n2-0"],
  ])("%s", (_, facts, want) => expect(said(facts)).toBe(want));

  it.each<[string, Partial<RolloutFacts>, string | undefined]>([
    ["when it is new", as(undefined), new Date(NOW).toISOString()],
    ["not while it rolls", as(rolling), SINCE],
    ["when it was paused", as({ ...rolling, phase: "Waiting", reason: "Paused" }), new Date(NOW).toISOString()],
    ["when its window opens", as({ ...rolling, phase: "Waiting", reason: "WindowClosed" }), new Date(NOW).toISOString()],
    ["not after it was held up", as({ ...rolling, phase: "Waiting", reason: "Held" }), SINCE],
    ["not when one more comes up", as({ ...rolling, phase: "Complete", reason: "AllUpdated" }), SINCE],
    ["when it is resumed", as(stopped, { resumedAt: "now" }), new Date(NOW).toISOString()],
    ["not while it is paused", as(rolling, { paused: true }), SINCE],
  ])("a round begins: %s", (_, facts, since) => expect(planRollout(rolloutFacts(facts)).since).toBe(since));

  it("looks no further than it must", () => {
    let looks = 0;
    const many = {
      name: "n1",
      answers: true,
      *outdated() {
        for (;;) {
          looks += 1;
          yield { instance: { name: "x" }, ...ready };
        }
      },
    };
    planRollout(rolloutFacts({ nodes: [many] }));
    planRollout(rolloutFacts({ nodes: [many], settings: settings({ mode: "Manual" }) }));
    planRollout(rolloutFacts({ nodes: [many], active: [1, 2, 3, 4].map(() => update("n1")) }));
    expect(looks).toBeLessThan(5);
  });

  it("says how far it is, what failed, and how to go on", () => {
    const message = (facts: Partial<RolloutFacts>) => planRollout(rolloutFacts(facts)).message;
    expect(message({})).toBe("1 of 5 instances run in it; 2 are being updated");
    expect(message({ allNodes: 3, active: [update("n1"), update("n2")] })).toBe(
      "1 of 5 instances run in it; 2 of 3 nodes have it; 2 are being updated",
    );
    expect(message({ failed: [failure("2026-03-01T11:30:00Z")] })).toBe(
      "the update of team-a/web failed: the new QEMU died (Migration team-a/update-web-1); look at it, then go on: " +
        `kubectl patch drollout r2 --type=merge -p '{"spec":{"resumedAt":"2026-03-01T12:00:00Z"}}'`,
    );
    expect(message(as(stopped))).toBe("as it was said");
    expect(message(nodes([left, left], [left, left, left]))).toBe(
      "1 of 5 instances run in it; left as they are: team-a/n1-0 (huge pages); team-a/n1-1 (huge pages); team-a/n2-0 (huge pages) and 2 more",
    );
    expect(message({ settings: settings(night) })).toBe("updates begin between 22:00 and 04:00 UTC; 1 of 5 instances run in it");
  });

  it("is looked at again when its window opens, or closes", () => {
    const recheck = (facts: Partial<RolloutFacts>) => planRollout(rolloutFacts(facts)).recheckMs;
    expect(recheck({ settings: settings(night) })).toBe(10 * 3_600_000);
    expect(recheck({ settings: settings(noon) })).toBe(30 * 60_000);
    expect(recheck({ settings: settings({ ...night, mode: "Manual" }) })).toBeUndefined();
    expect(recheck({})).toBeUndefined();
  });
});
