/** A guest that runs and writes, and gets other QEMUs in place. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect } from "vitest";
import { checkLog } from "../../../hack/guest/check-log.ts";
import type { MachineNic, MachinePlan } from "../../../node-agent/instance/driver.ts";
import type { QemuDriver } from "../../../node-agent/instance/qemu/driver.ts";
import type { SwitchOptions, UpdateMark, UpdatePlan, UpdateState } from "../../../node-agent/instance/update.ts";
import { signal, useGuests, WAIT, type Guests } from "./fixture.ts";
import { ensureRuntime, OTHER_RUNTIME } from "./machine.ts";
import { freeMonitor } from "./monitor.ts";

/** On a busy machine, under emulation. */
const PAUSE_MS = 3_000;

export interface UpdateTest {
  guests: Guests;
  started(nics?: (owner: { uid: number }) => Promise<MachineNic[]>): Promise<{ pid: number; wanted: MachinePlan }>;
  to(wanted: MachinePlan, runtimeVersion: string): UpdatePlan;
  prepare(wanted: MachinePlan, runtimeVersion: string): Promise<void>;
  switchOver(noted?: SwitchOptions["noted"], by?: QemuDriver): Promise<void>;
  /** The whole of it; gives the pid of the new QEMU. */
  update(wanted: MachinePlan, runtimeVersion: string): Promise<number>;
  state(by?: QemuDriver): Promise<UpdateState>;
  /** Pid of the QEMU that waits. */
  nextPid(): Promise<number>;
  /** Resolves when the switch under way has come to this step; looks without a pause. `before`: the marks of an earlier switch. */
  reached(name: UpdateMark["name"], before?: readonly UpdateMark[]): Promise<void>;
  /** The guest runs, its log is whole and grows, it was booted once, and its agent answers. */
  expectRuns(wanted: MachinePlan, by?: QemuDriver): Promise<void>;
  /** Nothing of an update is left, and one QEMU. */
  expectTidy(pid: number | undefined, by?: QemuDriver): Promise<void>;
}

export function useUpdates(trace: readonly string[] = []): UpdateTest {
  const guests = useGuests(trace);
  beforeAll(() => ensureRuntime(OTHER_RUNTIME), 600_000);

  async function started(
    nics: (owner: { uid: number }) => Promise<MachineNic[]> = () => Promise.resolve([]),
  ): Promise<{ pid: number; wanted: MachinePlan }> {
    const planned = await guests.plan("LINUX-LOG", { memoryMib: 192 });
    const wanted = { ...planned, nics: await nics(planned.identity) };
    const { pid } = await guests.driver.start(wanted, signal);
    const console = (): Promise<string> => guests.driver.consoleTail(guests.instanceUid, 100_000);
    await expect.poll(console, { ...WAIT, timeout: 60_000 }).toContain("GUEST ready");
    return { pid, wanted };
  }

  function to(wanted: MachinePlan, runtimeVersion: string): UpdatePlan {
    const { machineType: _, cpuModel: __, accelerator: ___, claimUid: ____, ...plan } = wanted;
    return { ...plan, runtimeVersion };
  }

  const prepare = (wanted: MachinePlan, runtimeVersion: string): Promise<void> =>
    guests.driver.updates.prepare(to(wanted, runtimeVersion), signal);

  const switchOver = (noted: SwitchOptions["noted"] = () => Promise.resolve(), by: QemuDriver = guests.driver): Promise<void> =>
    by.updates.switchOver(guests.instanceUid, { maxPauseMs: PAUSE_MS, noted });

  async function update(wanted: MachinePlan, runtimeVersion: string): Promise<number> {
    await prepare(wanted, runtimeVersion);
    await switchOver();
    await guests.driver.updates.finish(guests.instanceUid);
    return (await guests.driver.observe(guests.instanceUid)).pid ?? 0;
  }

  async function reached(name: UpdateMark["name"], before?: readonly UpdateMark[]): Promise<void> {
    const isThere = (): boolean => {
      const marks = guests.driver.updates.marks(guests.instanceUid);
      return marks !== before && marks.some((mark) => mark.name === name);
    };
    for (const end = Date.now() + 30_000; !isThere(); await new Promise((resolve) => setImmediate(resolve)))
      if (Date.now() > end) throw new Error(`the switch did not come to ${name}`);
  }

  async function expectRuns(wanted: MachinePlan, by: QemuDriver = guests.driver): Promise<void> {
    const { instanceUid, machine } = guests;
    const log = () => checkLog(wanted.disks[0]?.path ?? "");
    expect(await by.observe(instanceUid)).toMatchObject({ state: "running", runState: "running", updateBlockers: [] });
    const { records } = await log();
    await expect.poll(async () => (await log()).records, WAIT).toBeGreaterThan(records + 3);
    expect(await log()).toMatchObject({ hole: false });
    const console = await readFile(join(machine.paths.instanceVm(instanceUid), "console.log"), "utf8");
    expect(console.split("GUEST ready").length - 1, "boots").toBe(1);
    expect(await by.pingGuestAgent(instanceUid, 5_000)).toBe(true);
  }

  async function expectTidy(pid: number | undefined, by: QemuDriver = guests.driver): Promise<void> {
    const { instanceUid, machine } = guests;
    expect((await readdir(machine.paths.instanceVm(instanceUid))).toSorted()).toEqual(["console.log", "qga", "qmp", "qmp2"]);
    expect((await readdir(machine.paths.instance(instanceUid))).toSorted()).toEqual(["lock", "note.json", "stderr.log", "vm"]);
    expect(await machine.processes()).toEqual([pid]);
    const run = (await by.observe(instanceUid)).note?.run;
    expect([run?.pid, run?.next, run?.previous]).toEqual([pid, undefined, undefined]);
    const qmp = await freeMonitor(machine.paths.instanceVm(instanceUid));
    expect(await qmp.execute("query-migrate-parameters")).toMatchObject({ mode: "normal" });
    qmp.close();
  }

  return {
    guests,
    started,
    to,
    prepare,
    switchOver,
    update,
    state: (by = guests.driver) => by.updates.state(guests.instanceUid),
    nextPid: async () => (await guests.driver.observe(guests.instanceUid)).note?.run?.next?.pid ?? 0,
    reached,
    expectRuns,
    expectTidy,
  };
}
