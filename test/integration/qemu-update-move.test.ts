/** Real QEMU under TCG: a guest that got another QEMU in place moves like any other, and gets another one where it came to. */
import { beforeAll, describe, expect, test } from "vitest";
import type { MachinePlan } from "../../node-agent/instance/driver.ts";
import { signal, skipped, unable } from "./qemu/fixture.ts";
import { ensureRuntime, OTHER_RUNTIME, RUNTIME } from "./qemu/machine.ts";
import { expectNoTrace, expectRuns, useMoves, type Node } from "./qemu/move-fixture.ts";

describe.skipIf(unable !== undefined)(`moves between updates in place${skipped}`, () => {
  const t = useMoves();
  beforeAll(() => ensureRuntime(OTHER_RUNTIME), 600_000);

  async function update({ driver }: Node, plan: MachinePlan, runtimeVersion: string): Promise<void> {
    const { updates } = driver;
    const { machineType: _, cpuModel: __, accelerator: ___, claimUid: ____, ...machine } = plan;
    await updates.prepare({ ...machine, runtimeVersion }, signal);
    await updates.switchOver(t.instanceUid, { maxPauseMs: 3_000, noted: () => Promise.resolve() });
    await updates.finish(t.instanceUid);
  }

  test("update, move, update, move back", async () => {
    const first = await t.start();
    await update(t.a, first, OTHER_RUNTIME);
    const there = await t.move(t.a, t.b, first);
    await t.leave(t.a);
    await expectRuns(t.b, there);
    await expectNoTrace(t.b, there);
    await update(t.b, there, OTHER_RUNTIME);
    expect(await t.b.driver.observe(t.instanceUid)).toMatchObject({ note: { run: { runtimeVersion: OTHER_RUNTIME } } });
    await expectRuns(t.b, there);
    const back = await t.move(t.b, t.a, { ...there, runtimeVersion: RUNTIME });
    await t.leave(t.b);
    await expectRuns(t.a, back);
    await expectNoTrace(t.a, back);
  });
});
