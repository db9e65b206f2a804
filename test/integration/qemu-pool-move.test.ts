/** A real QEMU under TCG: the disk of a guest that runs and writes goes to another pool of its node. */
import { execa } from "execa";
import { chown, mkdir, readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { checkLog } from "../../hack/guest/check-log.ts";
import type { MachinePlan } from "../../node-agent/instance/driver.ts";
import type { PoolMovePlan } from "../../node-agent/instance/pool-move.ts";
import { signal, skipped, unable, useGuests, WAIT } from "./qemu/fixture.ts";
import { RUNTIME } from "./qemu/machine.ts";
import { freeMonitor } from "./qemu/monitor.ts";

describe.skipIf(unable !== undefined)(`a disk that changes its pool${skipped}`, () => {
  const t = useGuests();

  async function started(): Promise<{ pid: number; wanted: MachinePlan }> {
    const found = await t.start("LINUX-LOG", { memoryMib: 192 });
    await expect.poll(() => t.driver.consoleTail(t.instanceUid, 100_000), { ...WAIT, timeout: 60_000 }).toContain("GUEST ready");
    return found;
  }

  /** Makes the volume, and says how the disk goes there. */
  async function planTo(pool: string, wanted: MachinePlan, more: Partial<PoolMovePlan> = {}): Promise<PoolMovePlan> {
    const [disk] = wanted.disks;
    if (disk === undefined) throw new Error("a guest without a disk");
    const { size } = await stat(disk.path);
    const path = join(t.machine.paths.volumes(pool, t.instanceUid), "root.raw");
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, "");
    await truncate(path, size);
    await chown(path, wanted.identity.uid, wanted.identity.gid);
    return {
      disk: "root",
      sizeBytes: size,
      from: { pool: disk.pool, path: disk.path },
      to: { pool, path },
      claimUid: await t.machine.pod(),
      maxBytesPerSecond: undefined,
      runtimeVersion: RUNTIME,
      ...more,
    };
  }
  const inPool = (wanted: MachinePlan, { to, claimUid }: PoolMovePlan): MachinePlan => ({
    ...wanted,
    claimUid,
    disks: [{ id: "root", ...to }],
  });
  const records = async (path: string): Promise<number> => (await checkLog(path)).records;
  const writesOn = async (path: string): Promise<void> => {
    const before = await records(path);
    await expect.poll(() => records(path), WAIT).toBeGreaterThan(before + 3);
    expect(await checkLog(path)).toMatchObject({ hole: false });
  };
  async function ask(command: string, args = {}): Promise<string> {
    const qmp = await freeMonitor(t.machine.paths.instanceVm(t.instanceUid));
    try {
      return JSON.stringify(await qmp.execute(command, args));
    } finally {
      qmp.close();
    }
  }
  const nodes = async (): Promise<string[]> =>
    (await ask("query-named-block-nodes", { flat: true })).match(/(?<="node-name":")(disk|file|move)-[^"]*/g)?.toSorted() ?? [];
  const mounts = async (pid: number): Promise<string[]> =>
    [...(await readFile(`/proc/${pid}/mounts`, "utf8")).matchAll(/^\S+ \/disks\/(\S+) /gm)].map(([, pool = ""]) => pool);
  const state = (plan: PoolMovePlan, by = t.driver) => by.poolMoves.state(t.instanceUid, plan);
  async function toNew(plan: PoolMovePlan): Promise<void> {
    const { poolMoves } = t.driver;
    await poolMoves.copy(t.instanceUid, plan, signal);
    await poolMoves.complete(t.instanceUid, plan, signal);
    await poolMoves.pivot(t.instanceUid, plan);
    await poolMoves.settle(t.instanceUid, plan);
  }
  async function killed(pid: number): Promise<void> {
    process.kill(pid, "SIGKILL");
    await t.until("exited");
  }
  const expectSame = async ({ from, to }: PoolMovePlan): Promise<void> => {
    const { exitCode } = await execa("cmp", [from.path, to.path], { reject: false });
    expect(exitCode, "both volumes are the same").toBe(0);
  };

  test("goes there and back while the guest writes; its process stays, and belongs to the other claim", async () => {
    const { pid, wanted } = await started();
    const there = await planTo("p2", wanted);
    expect(await state(there)).toBe("old");
    await toNew(there);
    expect(await state(there)).toBe("new");
    const seen = await t.driver.observe(t.instanceUid);
    expect(seen).toMatchObject({ state: "running", pid, claimUid: there.claimUid });
    expect(await readFile(`/proc/${pid}/cgroup`, "utf8")).toContain(`pod${there.claimUid}/drover`);
    expect(await readFile(`/proc/${pid}/cgroup`, "utf8")).not.toContain(wanted.claimUid);
    expect(await mounts(pid)).toEqual(["p2"]);
    expect(await nodes()).toEqual(["disk-root.b", "file-root.b"]);
    expect(await ask("query-block-jobs")).toBe("[]");
    const stopped = await records(there.from.path);
    await writesOn(there.to.path);
    expect(await records(there.from.path)).toBe(stopped);
    await rm(dirname(there.from.path), { recursive: true });

    const back = await planTo("p1", inPool(wanted, there));
    await toNew(back);
    expect(await nodes()).toEqual(["disk-root", "file-root"]);
    expect(await mounts(pid)).toEqual(["p1"]);
    await writesOn(back.to.path);
    // twice the same pool: what was there before is not what is there now
    const again = await planTo("p2", inPool(wanted, back));
    await toNew(again);
    await writesOn(again.to.path);
    await t.driver.stop(t.instanceUid, { mode: "clean", deadlineMs: 20_000 }, signal);
    expect(await t.driver.observe(t.instanceUid)).toMatchObject({ state: "exited", exit: { reason: "Stopped" } });
    expect(await checkLog(again.to.path)).toMatchObject({ hole: false, torn: false });
  });

  test("stays within its rate, and is given up in the middle without a trace", async () => {
    const { pid, wanted } = await started();
    const plan = await planTo("p2", wanted, { maxBytesPerSecond: 2 ** 20 });
    const copying = t.driver.poolMoves.copy(t.instanceUid, plan, AbortSignal.timeout(60_000));
    copying.catch(() => undefined);
    await expect.poll(() => state(plan), WAIT).toBe("copying");
    await expect.poll(async () => (await t.driver.poolMoves.counters(t.instanceUid)).totalBytes, WAIT).toBeGreaterThan(0);
    const next = t.newDriver();
    await next.poolMoves.giveUp(t.instanceUid, plan);
    await next.close();
    await expect(copying).rejects.toThrow("root");
    expect(await state(plan)).toBe("old");
    expect(await nodes()).toEqual(["disk-root", "file-root"]);
    expect(await mounts(pid)).toEqual(["p1"]);
    await writesOn(plan.from.path);
  });

  test("given up when nothing is written any more, the guest writes on where it did", async () => {
    const { wanted } = await started();
    const plan = await planTo("p2", wanted);
    await t.driver.poolMoves.copy(t.instanceUid, plan, signal);
    expect(await state(plan)).toBe("ready");
    await t.driver.poolMoves.complete(t.instanceUid, plan, signal);
    expect(await state(plan)).toBe("pending");
    const before = await records(plan.from.path);
    await t.driver.poolMoves.giveUp(t.instanceUid, plan);
    await t.driver.poolMoves.giveUp(t.instanceUid, plan);
    expect(await state(plan)).toBe("old");
    await writesOn(plan.from.path);
    expect(await records(plan.to.path)).toBeLessThanOrEqual(before);
  });

  test("pending, both are the same and nothing is written, whoever is there to wait for; the next agent goes on", async () => {
    const { pid, wanted } = await started();
    const plan = await planTo("p2", wanted);
    await t.driver.poolMoves.copy(t.instanceUid, plan, signal);
    await writesOn(plan.from.path);
    await t.driver.poolMoves.complete(t.instanceUid, plan, signal);
    const next = t.newDriver();
    expect(await state(plan, next)).toBe("pending");
    await expectSame(plan);
    expect(await records(plan.to.path)).toBe(await records(plan.from.path));
    await next.poolMoves.complete(t.instanceUid, plan, signal);
    await next.poolMoves.pivot(t.instanceUid, plan);
    await next.poolMoves.pivot(t.instanceUid, plan);
    await next.poolMoves.settle(t.instanceUid, plan);
    await next.poolMoves.settle(t.instanceUid, plan);
    expect(await next.observe(t.instanceUid)).toMatchObject({ state: "running", pid, claimUid: plan.claimUid });
    await writesOn(plan.to.path);
    await next.close();
  });

  test.each([
    ["in step", ["copy"], "from"],
    ["pending", ["copy", "complete"], "from"],
    ["pending, when it was noted", ["copy", "complete"], "to"],
    ["exchanged", ["copy", "complete", "pivot"], "to"],
  ] as const)("QEMU dies %s: the guest boots from the right one, with all that it had written", async (_, steps, right) => {
    const { pid, wanted } = await started();
    const plan = await planTo("p2", wanted);
    for (const step of steps) await t.driver.poolMoves[step](t.instanceUid, plan, signal);
    const [other] = right === "from" ? [plan.to] : [plan.from];
    await killed(pid);
    expect(await state(plan)).toBe("gone");
    if (steps.length === 2) await expectSame(plan);
    const had = await records(plan[right].path);
    expect(had).toBeGreaterThanOrEqual(await records(other.path));
    await rm(other.path);
    await t.driver.start(right === "to" ? inPool(wanted, plan) : wanted, signal);
    await writesOn(plan[right].path);
    expect(await records(plan[right].path)).toBeGreaterThan(had);
  });

  test("a volume that cannot be written ends it, and the guest does not notice", async () => {
    const { wanted } = await started();
    const plan = await planTo("p2", wanted);
    await truncate(plan.to.path, 2 ** 20);
    await expect(t.driver.poolMoves.copy(t.instanceUid, plan, signal)).rejects.toThrow(/root|size/i);
    await t.driver.poolMoves.giveUp(t.instanceUid, plan);
    expect(await state(plan)).toBe("old");
    await writesOn(plan.from.path);
    expect(await readdir(t.machine.paths.instanceVm(t.instanceUid))).toHaveLength(4);
  });
});
