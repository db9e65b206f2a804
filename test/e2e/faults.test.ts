/** A move under faults: the telling cases of `make chaos`, by the same code, and the proof that its judge can condemn. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cases, type Case } from "../../hack/chaos/cases.ts";
import type { World } from "../../hack/chaos/run.ts";
import { CONTROL } from "../../hack/chaos/verdict.ts";
import { makeWorld, removeWorld } from "../../hack/chaos/world.ts";

let world: World;

beforeAll(async () => {
  world = await makeWorld();
});

afterAll(async () => {
  await removeWorld(world);
});

const caseOf = (phase: string, fault: string): Case => {
  const found = cases.find((one) => one.phase === phase && one.fault === fault);
  if (found === undefined) throw new Error(`there is no case ${phase} / ${fault}`);
  return found;
};

describe("the judge condemns what was broken on purpose", () => {
  test.each(cases.filter(({ phase }) => phase === CONTROL).map(({ fault }) => fault))("%s", async (fault) => {
    expect(await caseOf(CONTROL, fault).run(world)).toMatchObject({ ok: true, outcome: "condemned" });
  });
});

describe("no record is lost, one copy runs, nothing is left", () => {
  test.each([
    ["guest paused", "source agent killed"],
    ["guest paused", "API server stopped 30 s"],
    ["before Handover", "both agents killed"],
    ["all state sent", "QEMU killed at the target"],
    ["target runs", "operator killed"],
  ])("%s: %s", async (phase, fault) => {
    const { why, recordsLost, maxRunningCopies, leftovers } = await caseOf(phase, fault).run(world);
    expect(why).toBeUndefined();
    expect({ recordsLost, maxRunningCopies, leftovers }).toEqual({ recordsLost: 0, maxRunningCopies: 1, leftovers: [] });
  });
});
