/** Real QEMU under TCG: a guest that runs and writes gets another QEMU in place, of another version, there and back. */
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { beforeAll, describe, expect, test } from "vitest";
import { checkLog } from "../../hack/guest/check-log.ts";
import type { MachineNic, MachinePlan } from "../../node-agent/instance/driver.ts";
import { QemuDriver } from "../../node-agent/instance/qemu/driver.ts";
import type { UpdateMark, UpdatePlan } from "../../node-agent/instance/update.ts";
import { signal, skipped, unable, useGuests, WAIT } from "./qemu/fixture.ts";
import { ensureRuntime, OTHER_RUNTIME, RUNTIME } from "./qemu/machine.ts";

const PAUSE_MS = 2_000;
const noted = (): Promise<void> => Promise.resolve();

describe.skipIf(unable !== undefined)(`another QEMU under a guest${skipped}`, () => {
  const t = useGuests();
  beforeAll(() => ensureRuntime(OTHER_RUNTIME), 600_000);

  async function started(nics: MachineNic[] = []): Promise<{ pid: number; wanted: MachinePlan }> {
    const planned = await t.plan("LINUX-LOG", { memoryMib: 192 });
    const wanted = { ...planned, nics };
    const { pid } = await t.driver.start(wanted, signal);
    await expect.poll(() => t.driver.consoleTail(t.instanceUid, 100_000), { ...WAIT, timeout: 60_000 }).toContain("GUEST ready");
    return { pid, wanted };
  }
  const to = (
    { machineType: _, cpuModel: __, accelerator: ___, claimUid: ____, ...plan }: MachinePlan,
    runtimeVersion: string,
  ): UpdatePlan => ({
    ...plan,
    runtimeVersion,
  });
  async function update(wanted: MachinePlan, runtimeVersion: string, by: QemuDriver = t.driver): Promise<void> {
    await by.updates.prepare(to(wanted, runtimeVersion), signal);
    await by.updates.switchOver(t.instanceUid, { maxPauseMs: PAUSE_MS, noted });
    await by.updates.finish(t.instanceUid);
  }
  const state = (by: QemuDriver = t.driver) => by.updates.state(t.instanceUid);
  const logOf = (wanted: MachinePlan) => checkLog(wanted.disks[0]?.path ?? "");
  async function expectRuns(wanted: MachinePlan, by: QemuDriver = t.driver): Promise<void> {
    expect(await by.observe(t.instanceUid)).toMatchObject({ state: "running", runState: "running", updateBlockers: [] });
    const { records } = await logOf(wanted);
    await expect.poll(async () => (await logOf(wanted)).records, WAIT).toBeGreaterThan(records + 3);
    expect(await logOf(wanted)).toMatchObject({ hole: false });
  }
  /** Nothing of an update is left, and one QEMU. */
  async function expectTidy(pid?: number): Promise<void> {
    const { paths } = t.machine;
    expect((await readdir(paths.instanceVm(t.instanceUid))).toSorted()).toEqual(["console.log", "qga", "qmp", "qmp2"]);
    expect((await readdir(paths.instance(t.instanceUid))).toSorted()).toEqual(["lock", "note.json", "stderr.log", "vm"]);
    const processes = await t.machine.processes();
    expect(processes.length).toBe(1);
    if (pid !== undefined) expect(processes).toEqual([pid]);
    const run = (await t.driver.observe(t.instanceUid)).note?.run;
    expect([run?.next, run?.previous]).toEqual([undefined, undefined]);
  }
  const bootsOf = async (): Promise<number> =>
    (await readFile(join(t.machine.paths.instanceVm(t.instanceUid), "console.log"), "utf8")).split("GUEST ready").length - 1;
  const pauseOf = (marks: readonly UpdateMark[]): number => {
    const at = (name: UpdateMark["name"]): number => marks.find((mark) => mark.name === name)?.at ?? Number.NaN;
    return at("resumed") - at("stopped");
  };

  test("there and back between two versions, twice, while the guest writes", async () => {
    const { pid, wanted } = await started();
    const seen = new Set([pid]);
    const versions: (string | undefined)[] = [];
    for (const version of [OTHER_RUNTIME, RUNTIME, OTHER_RUNTIME, RUNTIME]) {
      await update(wanted, version);
      const now = await t.driver.observe(t.instanceUid);
      expect(now).toMatchObject({ state: "running", claimUid: wanted.claimUid, note: { run: { runtimeVersion: version } } });
      expect(seen.has(now.pid ?? 0)).toBe(false);
      seen.add(now.pid ?? 0);
      versions.push(now.note?.run?.qemuVersion);
      await expectTidy(now.pid);
      await expectRuns(wanted);
      expect(await t.driver.pingGuestAgent(t.instanceUid, 5_000)).toBe(true);
      process.stderr.write(
        `pause ${pauseOf(t.driver.updates.marks(t.instanceUid)).toFixed(1)} ms ${JSON.stringify(t.driver.updates.marks(t.instanceUid).map(({ name, at }, i, all) => `${name} ${(at - (all.find((m) => m.name === "stopped")?.at ?? 0)).toFixed(1)}`))}\n`,
      );
    }
    expect(versions[0]).not.toBe(versions[1]);
    expect(versions.slice(2)).toEqual(versions.slice(0, 2));
    expect(await bootsOf()).toBe(1);
    // it is stopped and ends as any guest
    await t.driver.stop(t.instanceUid, { mode: "clean", deadlineMs: 20_000 }, signal);
    expect(await t.driver.observe(t.instanceUid)).toMatchObject({ state: "exited", exit: { reason: "Stopped" } });
    expect(await logOf(wanted)).toMatchObject({ hole: false, torn: false });
  });
});
