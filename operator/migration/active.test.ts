import { describe, expect, it } from "vitest";
import type { PastMigration } from "../../crds/instance.ts";
import type { Migration, MigrationStatus } from "../../crds/migration.ts";
import { UID } from "../instance/fixtures.ts";
import { activeMove, chassisOf, isNoted, pastMigrations } from "./active.ts";
import { comesBefore } from "./attempt.ts";
import { migrationFixture, movingStatus } from "./fixtures.ts";
import { pruning } from "./history.ts";

const ended = (uid: string, endedAt: string, more: MigrationStatus = {}): Migration =>
  migrationFixture({ phase: "Succeeded", endedAt, instanceUid: UID, ...more }, {}, { uid, name: uid });
const past = (uid: string, endedAt: string): PastMigration => ({ name: uid, uid, phase: "Succeeded", endedAt });
const at = (minute: number) => `2026-01-01T00:${String(minute).padStart(2, "0")}:00.000Z`;

describe("the move of an instance", () => {
  it.each<[string, MigrationStatus | undefined, string | undefined, string[]]>([
    ["waits for its turn", { phase: "Pending", instanceUid: UID }, undefined, ["n1"]],
    ["has its turn", movingStatus(), "", ["n1"]],
    ["is under way", movingStatus("Copying"), "Copying", ["n1", "n2"]],
    ["is switched over", movingStatus("Handover"), "Handover", ["n1", "n2"]],
    ["may run there", movingStatus("Target"), "Target", ["n1", "n2"]],
    ["has arrived", movingStatus("Done"), "Done", ["n1"]],
    ["was given up", movingStatus("Source"), "Source", ["n1"]],
    [
      "was given up, and is tried again",
      movingStatus(undefined, { retries: 1, handover: { attempt: 1, state: "Source" } }),
      "",
      ["n1"],
    ],
    ["has ended", movingStatus("Done", { phase: "Succeeded" }), undefined, ["n1"]],
    ["is of another instance of that name", movingStatus("Copying", { instanceUid: "other" }), undefined, ["n1"]],
  ])("that %s", (_, status, state, chassis) => {
    const move = activeMove([migrationFixture(status)], UID);
    expect(move === undefined ? undefined : (move.state ?? "")).toBe(state);
    expect(chassisOf(move, "n1")).toEqual(chassis);
  });

  it("names both claims, and whether the source has let go", () => {
    const status = movingStatus("Done", { source: { attempt: 1, state: "Released" } });
    expect(activeMove([migrationFixture(status)], UID)).toMatchObject({
      sourceClaim: { uid: "c1" },
      targetClaim: { uid: "c2" },
      released: true,
      undecided: undefined,
    });
  });

  it("tells why the guest runs nowhere", () => {
    const conditions = [
      { type: "Ready", status: "False" as const, reason: "NeedsDecision", message: "decide", lastTransitionTime: at(0) },
    ];
    const status = movingStatus("Handover", { reason: "NeedsDecision", conditions });
    expect(activeMove([migrationFixture(status)], UID)?.undecided).toEqual({
      reason: "NeedsDecision",
      message: "Migration web-1: decide",
    });
  });
});

describe("past moves", () => {
  const five = { lastMigration: past("e", at(5)), earlierMigrations: ["d", "c", "b", "a"].map((uid, i) => past(uid, at(4 - i))) };

  it("come in the order in which they ended, five at most", () => {
    const { lastMigration, earlierMigrations } = pastMigrations(five, [ended("g", at(9)), ended("f", at(8))], UID);
    expect([lastMigration, ...(earlierMigrations ?? [])].map((one) => one?.uid)).toEqual(["g", "f", "e", "d", "c"]);
  });

  it("change nothing when there is nothing new", () => {
    const old = [ended("e", at(5)), ended("z", at(0)), migrationFixture(movingStatus("Copying"))];
    expect(pastMigrations(five, old, UID)).toBe(five);
    expect(pastMigrations({}, [ended("x", at(1), { instanceUid: "other" })], UID)).toEqual({});
  });

  it.each<[string, Parameters<typeof isNoted>[0], Migration, boolean]>([
    ["nothing is known", {}, ended("a", at(1)), false],
    ["the last", five, ended("e", at(5)), true],
    ["an earlier one", five, ended("b", at(2)), true],
    ["older than all that are kept", five, ended("z", at(0)), true],
    ["newer", five, ended("f", at(6)), false],
    ["older, and there is room", { lastMigration: past("e", at(5)) }, ended("a", at(1)), false],
  ])("%s: noted?", (_, known, migration, want) => expect(isNoted(known, migration)).toBe(want));
});

describe("pruning", () => {
  const now = Date.parse(at(30));
  const limits = { count: 2, ageMs: 3_600_000 };
  const all = [ended("a", at(1)), ended("b", at(2)), ended("c", at(3)), migrationFixture(movingStatus("Copying"))];
  it.each<[number, ReturnType<typeof pruning>]>([
    [0, "delete"],
    [1, { afterMs: 32 * 60_000 }],
    [2, { afterMs: 33 * 60_000 }],
  ])("of three that have ended, the %ith", (index, want) => {
    expect(pruning(all[index] as Migration, all, limits, now)).toEqual(want);
  });
  it("some seconds after there is one too many", () => {
    const [oldest, , newest] = all as [Migration, Migration, Migration];
    const end = Date.parse(at(3));
    expect(pruning(oldest, all, limits, end + 4_000)).toEqual({ afterMs: 6_000 });
    expect(pruning(oldest, all, limits, end + 10_000)).toBe("delete");
    expect(pruning(newest, all, { ...limits, count: 0 }, end + 9_999)).toEqual({ afterMs: 1 });
    expect(pruning(newest, all, { ...limits, count: 0 }, end + 10_000)).toBe("delete");
  });
  it("by age", () => expect(pruning(ended("a", at(1)), [], limits, now + 3_600_000)).toBe("delete"));
  it("looks again within a day", () => {
    expect(pruning(ended("a", at(30)), [], { count: 1, ageMs: 1e10 }, now)).toEqual({ afterMs: 86_400_000 });
  });
});

describe("two Migrations of one instance", () => {
  const one = (uid: string, status?: MigrationStatus, spec = {}, creationTimestamp = at(0)) =>
    migrationFixture(status, spec, { uid, name: uid, creationTimestamp });
  it.each<[string, Migration, Migration, string | undefined]>([
    ["the older goes first", one("b", undefined, {}, at(1)), one("a"), "a"],
    ["the younger does not", one("a"), one("b", undefined, {}, at(1)), undefined],
    ["a drain goes before a user's", one("a"), one("b", undefined, { priority: "Drain" }, at(1)), "b"],
    [
      "one that has its turn goes first, whatever the other is",
      one("a", undefined, { priority: "Drain" }),
      one("b", movingStatus("Copying")),
      "b",
    ],
    [
      "one that has its turn does not wait for the more urgent",
      one("b", movingStatus("Copying")),
      one("a", undefined, { priority: "Drain" }),
      undefined,
    ],
    ["one that has ended is no matter", one("b", undefined, {}, at(1)), ended("a", at(0)), undefined],
    [
      "one that is cancelled is no matter, unless it has its turn",
      one("b", undefined, {}, at(1)),
      one("a", undefined, { cancel: true }),
      undefined,
    ],
  ])("%s", (_, mine, other, want) => expect(comesBefore(mine, [mine, other])?.metadata.uid).toBe(want));
});
