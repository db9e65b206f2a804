import { expect, it } from "vitest";
import type { HandoverState, MigrationSpec, MigrationStatus } from "../../crds/migration.ts";
import { migrationFixture, movingStatus } from "./fixtures.ts";
import type { MovePlan } from "./plan.ts";
import { QUIET_MS, quietFor } from "./quiet.ts";

const WAIT: Pick<MovePlan, "step" | "reason"> = { step: { do: "wait" }, reason: "SwitchingOver" };
const quiet = (state: HandoverState, plan = WAIT, lastedMs = 0): { ms: number; topic: string | undefined } => {
  let topic: string | undefined;
  const lasted = (_: string, value: string | undefined): number => {
    topic = value;
    return value === undefined ? 0 : lastedMs;
  };
  const migration = migrationFixture(movingStatus(state, { retries: 1 }));
  return { ms: quietFor({ migration, lasted }, plan), topic };
};

it("the guest may stop any moment: nothing is said for a while, and then it is", () => {
  expect(quiet("Handover")).toEqual({ ms: QUIET_MS, topic: "2" });
  expect(quiet("Handover", WAIT, QUIET_MS - 100).ms).toBe(100);
  expect(quiet("Handover", WAIT, QUIET_MS + 100).ms).toBe(0);
});

it.each<[string, HandoverState, Pick<MovePlan, "step" | "reason">]>([
  ["it is still copied", "Copying", { ...WAIT, reason: "CopyingMemory" }],
  ["it has come to the target", "Done", { ...WAIT, reason: "Arriving" }],
  ["whose it is was decided", "Target", WAIT],
  ["somebody wants it back, too late", "Handover", { ...WAIT, reason: "TooLate" }],
  ["there is something to decide", "Handover", { ...WAIT, step: { do: "note" } }],
])("not when %s", (_, state, plan) => expect(quiet(state, plan)).toEqual({ ms: 0, topic: undefined }));

it.each<[string, Partial<MigrationSpec>, Partial<MigrationStatus>, boolean]>([
  ["a move to another node", {}, {}, true],
  ["an update in place", { mode: "InPlace" }, { targetNode: "n1" }, true],
  ["a disk that goes to another pool of its node", { target: { pool: "fast" } }, { targetNode: "n1" }, false],
  ["a stopped instance", { mode: "Cold" }, {}, false],
])("%s: the guest stands still for it or not", (_, spec, more, isQuiet) => {
  const migration = migrationFixture(movingStatus("Handover", more), spec);
  expect(quietFor({ migration, lasted: () => 0 }, WAIT)).toBe(isQuiet ? QUIET_MS : 0);
});
