/** Real QEMU under TCG: lives and ends of guests, as the driver sees them. */
import { randomUUID } from "node:crypto";
import { chmod, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { describe, expect, test } from "vitest";
import { UserError } from "../../node-agent/errors.ts";
import type { MachinePlan } from "../../node-agent/instance/driver.ts";
import { isAlive, processNow } from "../../node-agent/ovs/process.ts";
import { signal, skipped, unable, useGuests, WAIT } from "./qemu/fixture.ts";
import { freeMonitor } from "./qemu/monitor.ts";

describe.skipIf(unable !== undefined)(`lives of guests${skipped}`, () => {
  const guests = useGuests();

  test("starting twice, also at the same time, is starting once", async () => {
    const wanted = await guests.plan("IDLE");
    const pids = await Promise.all([
      guests.driver.start(wanted, signal),
      guests.driver.start(wanted, signal),
      guests.driver.start(wanted, signal),
    ]);
    expect(new Set(pids.map(({ pid }) => pid)).size).toBe(1);
    expect(await guests.machine.processes()).toEqual([pids[0]?.pid]);
    await expect(guests.driver.start({ ...wanted, claimUid: await guests.machine.pod() }, signal)).rejects.toMatchObject({
      reason: "RunsInOtherClaim",
    });
  });

  test("the agent is killed: a new one has the same process within 2 s, and sees its events", async () => {
    const pid = await guests.startedByKilledAgent(await guests.plan("POLITE"));
    const from = performance.now();
    const [seen] = await Promise.all((await guests.driver.list()).map((uid) => guests.driver.observe(uid)));
    const took = performance.now() - from;
    expect(seen).toMatchObject({ state: "running", pid });
    expect(took).toBeLessThan(2000);
    await guests.booted();
    await guests.driver.stop(guests.instanceUid, { mode: "clean", deadlineMs: 15_000 }, signal);
    expect(await guests.until("exited")).toMatchObject({
      exit: { reason: "Stopped", message: "the guest has shut down as asked" },
    });
  });

  test("a guest that shuts down is seen by an event, and QEMU is ended", async () => {
    const { pid } = await guests.start("SHUTDOWN -DTICKS=20");
    const id = await processNow(pid);
    expect(await guests.until("exited")).toMatchObject({ exit: { reason: "GuestShutdown" } });
    expect(id && (await isAlive(id))).toBe(false);
  });

  test("a guest that panics is told from one that shuts down", async () => {
    await guests.start("PANIC");
    expect(await guests.until("exited")).toMatchObject({ exit: { reason: "GuestPanicked" } });
  });

  test("a guest that shut down while no agent was there is told from a crash by the next agent", async () => {
    const pid = await guests.startedByKilledAgent(await guests.plan("SHUTDOWN -DTICKS=1"));
    await expect
      .poll(() => readFile(join(guests.machine.paths.instanceVm(guests.instanceUid), "console.log"), "utf8"), WAIT)
      .toContain("GUEST");
    await new Promise((resolve) => setTimeout(resolve, 1000));
    expect((await processNow(pid))?.pid).toBe(pid);
    expect(await guests.until("exited")).toMatchObject({ exit: { reason: "GuestShutdown" } });
    expect(await processNow(pid)).toBeUndefined();
  });

  test("a clean stop presses the power button; a deaf guest is forced after the deadline", async () => {
    await guests.start("POLITE");
    await guests.booted();
    await guests.driver.stop(guests.instanceUid, { mode: "clean", deadlineMs: 15_000 }, signal);
    expect(await guests.driver.observe(guests.instanceUid)).toMatchObject({
      state: "exited",
      exit: { message: "the guest has shut down as asked" },
    });

    await guests.driver.forget(guests.instanceUid);
    await guests.start("IDLE");
    await guests.booted();
    const from = performance.now();
    await guests.driver.stop(guests.instanceUid, { mode: "clean", deadlineMs: 3000 }, signal);
    expect(performance.now() - from).toBeGreaterThan(2900);
    expect(await guests.driver.observe(guests.instanceUid)).toMatchObject({
      state: "exited",
      exit: { reason: "Stopped", message: "stopped as asked" },
    });
  });

  test("a guest above its claim's memory limit: seen, and named", async () => {
    await guests.start("EATER -DEAT_MIB=200", { memoryMib: 256, limitMib: 150 });
    expect(await guests.until("exited")).toMatchObject({ exit: { reason: "MemoryLimit" } });
    // and by an agent that was not there
    const other = guests.newDriver();
    expect(await other.observe(guests.instanceUid)).toMatchObject({ state: "exited", exit: { reason: "MemoryLimit" } });
    await other.close();
  });

  test("a QEMU that hangs is not taken for ended; a forced stop ends it all the same", async () => {
    const { pid } = await guests.start("IDLE");
    process.kill(pid, "SIGSTOP");
    expect(await guests.driver.observe(guests.instanceUid)).toMatchObject({ state: "running", pid, runState: "not-answering" });
    await guests.driver.stop(guests.instanceUid, { mode: "force", deadlineMs: 0 }, signal);
    expect(await guests.driver.observe(guests.instanceUid)).toMatchObject({ state: "exited", exit: { reason: "Stopped" } });
  });

  test("QEMU killed by someone: told by its parent, guessed by no one else", async () => {
    const { pid, wanted } = await guests.start("IDLE");
    process.kill(pid, "SIGKILL");
    expect(await guests.until("exited")).toMatchObject({ exit: { reason: "Killed" } });

    const again = await guests.startedByKilledAgent(wanted);
    expect(await guests.until("running")).toMatchObject({ pid: again });
    process.kill(again, "SIGKILL");
    expect(await guests.until("exited")).toMatchObject({ exit: { reason: "Unknown" } });
  });

  test("the claim pod is taken away with its cgroup", async () => {
    const { wanted } = await guests.start("IDLE");
    await guests.machine.removePod(wanted.claimUid);
    expect((await guests.until("exited")).exit?.reason).toMatch(/ClaimGone|Killed/);
    await guests.driver.start({ ...wanted, claimUid: await guests.machine.pod() }, signal);
    expect(await guests.driver.observe(guests.instanceUid)).toMatchObject({ state: "running" });
  });

  describe("a start that fails says why, and leaves nothing running", () => {
    async function failure(wanted: MachinePlan): Promise<UserError> {
      const error = await guests.driver.start(wanted, signal).then(
        () => undefined,
        (e: unknown) => e,
      );
      expect(error).toBeInstanceOf(UserError);
      expect(await guests.machine.processes()).toEqual([]);
      expect(await guests.driver.observe(guests.instanceUid)).toMatchObject({ state: "absent" });
      return error as UserError;
    }

    test("QEMU's own words", async () => {
      const wanted = await guests.plan("IDLE");
      expect((await failure({ ...wanted, machineType: "pc-q35-99.0" })).message).toContain("unsupported machine type");
      expect((await failure({ ...wanted, cpuModel: "Haswell-v1" })).message).toContain("TCG doesn't support requested feature");
      // healed when mended
      await guests.driver.start(wanted, signal);
      await guests.driver.stop(guests.instanceUid, { mode: "force", deadlineMs: 0 }, signal);
      await expect(guests.driver.start({ ...wanted, machineType: "pc-q35-99.0" }, signal)).rejects.toThrow(UserError);
      expect(await guests.driver.observe(guests.instanceUid)).toMatchObject({
        state: "exited",
        exit: { reason: "Stopped" },
        note: { run: { machineType: "pc-q35-10.0" } },
      });
    });

    test("a disk that QEMU may not open, or that is not there", async () => {
      const wanted = await guests.plan("IDLE");
      const disk = wanted.disks[0]?.path ?? "";
      await execa("chown", ["0:0", disk]);
      await chmod(disk, 0o600);
      expect((await failure(wanted)).message).toContain("Could not open '/disks/p1/root.raw': Permission denied");
      await rm(disk);
      expect(await failure(wanted)).toMatchObject({
        reason: "DiskMissing",
        message: "disk root in pool p1 is not there (ENOENT); is the pool mounted?",
      });
    });

    test("a claim too small for QEMU itself", async () => {
      expect(await failure(await guests.plan("IDLE", { limitMib: 8 }))).toMatchObject({ reason: "MemoryLimit" });
    });

    test("a tap that is not there", async () => {
      const wanted = await guests.plan("IDLE");
      const nics = [{ id: "eth0", tap: "dqtnothere", mac: "02:00:00:00:00:01", mtu: 1442 }];
      expect(await failure({ ...wanted, nics })).toMatchObject({ reason: "TapMissing" });
    });

    test("a runtime or a claim that is not there", async () => {
      const wanted = await guests.plan("IDLE");
      expect(await failure({ ...wanted, runtimeVersion: "none" })).toMatchObject({ reason: "RuntimeMissing" });
      const cancel = AbortSignal.timeout(300);
      await expect(guests.driver.start({ ...wanted, claimUid: randomUUID() }, cancel)).rejects.toThrow("aborted");
      expect(await guests.driver.observe(guests.instanceUid)).toMatchObject({ state: "absent" });
    });
  });

  test("a tap is opened without any capability", async () => {
    const wanted = await guests.plan("IDLE");
    const tap = `dqt${process.pid}`;
    await execa("ip", ["tuntap", "add", tap, "mode", "tap", "user", String(wanted.identity.uid)]);
    try {
      await execa("ip", ["link", "set", tap, "up"]);
      const nics = [{ id: "eth0", tap, mac: "02:00:00:00:00:01", mtu: 1442 }];
      await guests.driver.start({ ...wanted, nics }, signal);
      expect((await readFile(`/sys/class/net/${tap}/carrier`, "utf8")).trim()).toBe("1");
      await guests.driver.stop(guests.instanceUid, { mode: "force", deadlineMs: 0 }, signal);
    } finally {
      await execa("ip", ["link", "del", tap]);
    }
  });

  test("a guest that never stops talking does not fill the node's disk", async () => {
    await guests.start("CHATTER");
    const vm = guests.machine.paths.instanceVm(guests.instanceUid);
    await expect
      .poll(
        () =>
          stat(join(vm, "console.log.1")).then(
            ({ size }) => size,
            () => 0,
          ),
        WAIT,
      )
      .toBe(1024 * 1024);
    expect((await stat(join(vm, "console.log"))).size).toBeLessThan(64 * 1024 * 1024);
    expect((await guests.driver.consoleTail(guests.instanceUid, 500)).length).toBe(500);
  });

  test("Linux: its guest agent is seen to come, a reset happens in place, it shuts down when asked", async () => {
    const wanted = await guests.plan("LINUX", { memoryMib: 192 });
    const { pid } = await guests.driver.start({ ...wanted, cpus: 2 }, signal);
    await guestAgentOpens();
    await expect.poll(() => guests.driver.pingGuestAgent(guests.instanceUid, 2000), WAIT).toBe(true);
    expect(await guests.driver.consoleTail(guests.instanceUid, 100_000)).toContain("GUEST ready");

    const qmp = await freeMonitor(guests.machine.paths.instanceVm(guests.instanceUid));
    expect(await qmp.execute("yank", { instances: [] }, { outOfBand: true })).toEqual({});
    await expect(qmp.execute("device_del", { id: "nothing" })).rejects.toThrow("device_del: Device 'nothing' not found");
    await qmp.execute("system_reset");
    qmp.close();
    // As long as its first boot may take; what the console says instead is shown.
    await expect
      .poll(() => guests.driver.consoleTail(guests.instanceUid, 100_000), { ...WAIT, timeout: 60_000 })
      .toMatch(/GUEST ready.*GUEST ready/s);
    await expect.poll(() => guests.driver.pingGuestAgent(guests.instanceUid, 2000), WAIT).toBe(true);
    expect(await guests.driver.observe(guests.instanceUid)).toMatchObject({ state: "running", pid });

    const from = performance.now();
    await guests.driver.stop(guests.instanceUid, { mode: "clean", deadlineMs: 30_000 }, signal);
    expect(performance.now() - from).toBeLessThan(15_000); // before the power button, which comes after half of the time
    expect(await guests.driver.observe(guests.instanceUid)).toMatchObject({
      exit: { reason: "Stopped", message: "the guest has shut down as asked" },
    });
  });

  /** Waits for it by events alone. */
  function guestAgentOpens(): Promise<void> {
    return new Promise((resolve, reject) => {
      const unwatch = guests.driver.watch(guests.instanceUid, () => {
        guests.driver.observe(guests.instanceUid).then((seen) => seen.guestAgentOpen && finish(), reject);
      });
      const timer = setTimeout(() => reject(new Error("no guest agent within 60 s")), 60_000);
      function finish(): void {
        clearTimeout(timer);
        unwatch();
        resolve();
      }
    });
  }

  test("instances get users of their own, the smallest free ones", async () => {
    const uids = [randomUUID(), randomUUID(), randomUUID()];
    const prepare = (uid: string): Promise<{ uid: number }> =>
      guests.driver.prepare({ instanceUid: uid, namespace: "n", name: "i" });
    const made = await Promise.all(uids.map(prepare));
    expect(made.map(({ uid }) => uid)).toEqual([100_000, 100_001, 100_002]);
    await guests.driver.forget(uids[1] ?? "");
    expect((await prepare(randomUUID())).uid).toBe(100_001);
    expect((await prepare(uids[2] ?? "")).uid).toBe(100_002);
    expect((await guests.driver.list()).length).toBe(3);
    await expect(guests.driver.prepare({ instanceUid: "../../etc", namespace: "n", name: "i" })).rejects.toThrow("not a uid");
  });
});
