/** Real QEMUs under TCG: a guest moves from one to the other, or does not. */
import { describe, expect, test } from "vitest";
import { skipped, unable, WAIT } from "./qemu/fixture.ts";
import { logOf, newSecret, useMoves } from "./qemu/move-fixture.ts";

describe.skipIf(unable !== undefined)(`live moves${skipped}`, () => {
  const t = useMoves();

  test.each([
    ["in clear", undefined],
    ["by TLS", newSecret()],
  ])("a guest moves %s; its log has no gap", async (_, secret) => {
    const plan = await t.start();
    const arrived = await t.move(t.a, t.b, plan, { secret });
    expect(await t.a.driver.observe(t.instanceUid)).toMatchObject({ state: "paused", runState: "postmigrate" });
    expect(await t.b.driver.observe(t.instanceUid)).toMatchObject({ state: "running" });
    const before = await logOf(arrived);
    expect(before.records).toBeGreaterThanOrEqual((await logOf(plan)).records);
    await expect.poll(async () => (await logOf(arrived)).records, WAIT).toBeGreaterThan(before.records + 5);
    expect(await logOf(arrived)).toMatchObject({ hole: false });
  });
});
