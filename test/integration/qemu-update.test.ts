/** Real QEMU under TCG: a guest that runs and writes gets another QEMU in place, of another version, and what can go wrong with that. */
import { mkdir, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { describe, expect, onTestFinished, test } from "vitest";
import { checkLog } from "../../hack/guest/check-log.ts";
import { UserError } from "../../node-agent/errors.ts";
import { ClaimCgroups } from "../../node-agent/instance/qemu/cgroup.ts";
import { Notes } from "../../node-agent/instance/qemu/notes.ts";
import { QmpSession } from "../../node-agent/instance/qemu/qmp/session.ts";
import { signal, skipped, unable, WAIT } from "./qemu/fixture.ts";
import { freeMonitor } from "./qemu/monitor.ts";
import { OTHER_RUNTIME, RUNTIME } from "./qemu/machine.ts";
import { useUpdates } from "./qemu/update-fixture.ts";

const HANGS = new Promise<never>(() => undefined);

describe.skipIf(unable !== undefined)(`another QEMU under a guest${skipped}`, () => {
  const u = useUpdates();
  const uid = (): string => u.guests.instanceUid;
  const vm = (name = ""): string => join(u.guests.machine.paths.instanceVm(uid()), name);
  const count = async (pid: number, what: string): Promise<number> => (await readdir(`/proc/${pid}/${what}`)).length;
  const kill = (pid: number, by: NodeJS.Signals = "SIGKILL"): void => void process.kill(pid, by);
  async function refused(work: Promise<unknown>): Promise<{ reason: string; message: string }> {
    const error: unknown = await work.then(
      () => undefined,
      (cause: unknown) => cause,
    );
    if (!(error instanceof UserError)) throw new Error(`no UserError: ${String(error)}`);
    return { reason: error.reason, message: error.message };
  }

  test("there and back between two versions, twice, while the guest writes", async () => {
    const { pid, wanted } = await u.started();
    const pids = [pid];
    const versions: (string | undefined)[] = [];
    for (const version of [OTHER_RUNTIME, RUNTIME, OTHER_RUNTIME, RUNTIME]) {
      pids.push(await u.update(wanted, version));
      const now = await u.guests.driver.observe(uid());
      expect(now).toMatchObject({ state: "running", claimUid: wanted.claimUid, note: { run: { runtimeVersion: version } } });
      versions.push(now.note?.run?.qemuVersion);
      await u.expectTidy(now.pid);
      await u.expectRuns(wanted);
    }
    expect(new Set(pids).size).toBe(5);
    expect(versions[0]).not.toBe(versions[1]);
    expect(versions.slice(2)).toEqual(versions.slice(0, 2));
    // it is stopped and ends as any guest
    await u.guests.driver.stop(uid(), { mode: "clean", deadlineMs: 20_000 }, signal);
    expect(await u.guests.driver.observe(uid())).toMatchObject({ state: "exited", exit: { reason: "Stopped" } });
    expect(await checkLog(wanted.disks[0]?.path ?? "")).toMatchObject({ hole: false, torn: false });
  });

  test("thirty in a row leave nothing behind: descriptors, files, mounts, taps, memory", async () => {
    const tap = `dqr${process.pid}`;
    const { wanted } = await u.started(async (owner) => {
      onTestFinished(async () => void (await execa("ip", ["link", "del", tap])));
      await execa("ip", ["tuntap", "add", tap, "mode", "tap", "user", String(owner.uid)]);
      return [{ id: "eth0", tap, mac: "02:00:00:00:00:01", mtu: 1442 }];
    });
    const links = async (): Promise<number> => (await readdir("/sys/class/net")).length;
    const look = async (pid: number) => {
      const status = await readFile(`/proc/${pid}/status`, "utf8");
      const mounts = (await readFile(`/proc/${pid}/mounts`, "utf8")).trim().split("\n").length;
      const anonymous = Number(/^RssAnon:\s+(\d+)/m.exec(status)?.[1]) / 1024;
      return { open: await count(pid, "fd"), threads: await count(pid, "task"), mounts, anonymous };
    };
    const first = await look(await u.update(wanted, RUNTIME));
    const own = [await count(process.pid, "fd"), await links()];
    let pid = 0;
    for (let n = 0; n < 30; n++) pid = await u.update(wanted, n % 2 === 0 ? OTHER_RUNTIME : RUNTIME);
    const last = await look(pid);
    expect({ ...last, anonymous: 0, threads: 0 }).toEqual({ ...first, anonymous: 0, threads: 0 });
    expect(last.anonymous).toBeLessThan(first.anonymous + 32);
    expect(await count(process.pid, "fd")).toBeLessThanOrEqual((own[0] ?? 0) + 2);
    expect(await links()).toBe(own[1]);
    await u.expectTidy(pid);
    await u.expectRuns(wanted);
  });

  test("while it waits its sockets are open to nobody else, and it holds what only it has", async () => {
    const { pid, wanted } = await u.started();
    await u.prepare(wanted, OTHER_RUNTIME);
    expect(await u.state()).toBe("ready");
    const sockets = await stat(vm("sockets"));
    expect([sockets.mode & 0o777, sockets.uid, sockets.gid]).toEqual([0o700, wanted.identity.uid, wanted.identity.gid]);
    const next = await u.nextPid();
    const mounts = await readFile(`/proc/${next}/mounts`, "utf8");
    expect(
      mounts
        .trim()
        .split("\n")
        .map((line) => line.split(" ")[1]),
    ).toEqual(["/", "/usr", "/vm", "/sockets", "/proc", "/disks/p1"]);
    expect(await readFile(`/proc/${next}/status`, "utf8")).toMatch(/CapEff:\s+0000000000000000/);
    expect(await readFile(`/proc/${next}/cgroup`, "utf8")).toContain(`pod${wanted.claimUid}/drover`);
    // repeated: the same one
    await u.prepare(wanted, OTHER_RUNTIME);
    expect(await u.nextPid()).toBe(next);
    // to another version: another one
    await u.prepare(wanted, RUNTIME);
    expect(await u.nextPid()).not.toBe(next);
    // one whose agent died before it could note which process it is
    const { pid: last, pidStart: _, ...unknown } = (await u.guests.driver.observe(uid())).note?.run?.next ?? {};
    await new Notes(u.guests.machine.paths).update(uid(), (note) =>
      note.run === undefined
        ? note
        : { ...note, run: { ...note.run, next: { startedAt: "", runtimeVersion: RUNTIME, ...unknown } } },
    );
    expect(await u.state()).toBe("old");
    await u.prepare(wanted, RUNTIME);
    expect(await u.nextPid()).not.toBe(last);
    expect((await u.guests.machine.processes()).length).toBe(2);
    await u.guests.driver.updates.giveUp(uid());
    await u.guests.driver.updates.giveUp(uid());
    expect(await u.state()).toBe("old");
    await u.expectTidy(pid);
    await u.expectRuns(wanted);
  });

  test("what cannot be is said, and the guest runs on as it did", async () => {
    const { pid, wanted } = await u.started();
    const { driver, machine } = u.guests;
    const prepare = (change: Partial<typeof wanted>, version = OTHER_RUNTIME) =>
      refused(driver.updates.prepare(u.to({ ...wanted, ...change }, version), signal));
    expect(await prepare({}, "none")).toMatchObject({ reason: "RuntimeMissing" });
    const nics = [{ id: "eth0", tap: "lo", mac: "02:00:00:00:00:01", mtu: 1442 }];
    expect(await prepare({ nics })).toMatchObject({ reason: "QemuFailed", message: /does not have tap lo open/ });
    const empty = machine.paths.runtime(`empty-${process.pid}`);
    await mkdir(join(empty, "usr"), { recursive: true });
    try {
      await rename(join(machine.paths.runtime(OTHER_RUNTIME), "enter"), join(empty, "enter"));
      expect(await prepare({}, `empty-${process.pid}`)).toMatchObject({ message: /cannot run \/usr\/bin\/qemu-system-x86_64/ });
      await rename(join(empty, "enter"), join(machine.paths.runtime(OTHER_RUNTIME), "enter"));
    } finally {
      await rm(empty, { recursive: true });
    }
    await u.expectTidy(pid);
    // its machine is made only when it has the memory; this one is not as large as it wants
    await u.prepare({ ...wanted, memoryBytes: wanted.memoryBytes + 2 ** 24 }, OTHER_RUNTIME);
    expect(await refused(u.switchOver())).toMatchObject({ reason: "QemuFailed", message: /too small for 'size' option/ });
    expect(await u.state()).toBe("old");
    await u.expectTidy(pid);
    await u.expectRuns(wanted);
    await u.update(wanted, OTHER_RUNTIME);
    await u.expectRuns(wanted);
  });

  test("the new one is killed before and while the guest's state comes: the guest goes on, and the next try works", async () => {
    const { pid, wanted } = await u.started();
    await u.prepare(wanted, OTHER_RUNTIME);
    kill(await u.nextPid());
    await expect.poll(() => u.state(), WAIT).toBe("old");
    for (const step of ["sent", "listening", "stopped"] as const) {
      await u.prepare(wanted, OTHER_RUNTIME);
      const next = await u.nextPid();
      const killed = Promise.withResolvers<void>();
      // however late that is: the promise is made only once its end has been heard of, and so never
      const heard = async (stillThere: () => void): Promise<void> => {
        await killed.promise;
        for (;;) {
          stillThere();
          await new Promise((resolve) => setImmediate(resolve));
        }
      };
      const before = u.guests.driver.updates.marks(uid());
      const switching = refused(u.switchOver(heard));
      await u.reached(step, before);
      kill(next);
      killed.resolve();
      await switching;
      await u.expectTidy(pid);
      await u.expectRuns(wanted);
    }
    await u.update(wanted, OTHER_RUNTIME);
    await u.expectRuns(wanted);
  });

  test("the new one and the agent are killed when it has all of the guest: the guest goes on in the old one", async () => {
    const { pid, wanted } = await u.started();
    await u.prepare(wanted, OTHER_RUNTIME);
    const next = await u.nextPid();
    u.switchOver(() => HANGS).catch(() => undefined);
    await u.reached("complete");
    await u.guests.driver.close();
    kill(next);
    const agent = u.guests.newDriver();
    await expect.poll(() => u.state(agent), WAIT).toBe("old");
    await agent.updates.giveUp(uid());
    await u.expectRuns(wanted, agent);
    await agent.close();
    await u.expectTidy(pid);
  });

  test("a new one that hangs while the guest stands still is ended after the longest pause", async () => {
    const { pid, wanted } = await u.started();
    const { updates } = u.guests.driver;
    const tooLate = new Error("it had all of the guest before it hung");
    const hung = async (): Promise<string> => {
      await u.prepare(wanted, OTHER_RUNTIME);
      const next = await u.nextPid();
      const before = updates.marks(uid());
      const switching = refused(updates.switchOver(uid(), { maxPauseMs: 300, noted: () => Promise.reject(tooLate) }));
      await u.reached("stopped", before);
      kill(next, "SIGSTOP");
      const { reason, message } = await switching;
      return message.includes(tooLate.message) ? "too late" : reason;
    };
    // some 10 ms: a busy machine may miss them
    let seen = await hung();
    for (let n = 0; n < 10 && seen === "too late"; n++) seen = await hung();
    expect(seen).toBe("PauseTooLong");
    await u.expectTidy(pid);
    await u.expectRuns(wanted);
    expect(await u.update(wanted, OTHER_RUNTIME)).not.toBe(pid);
    await u.expectRuns(wanted);
  });

  test("the old one is killed while the new one waits: the guest has ended; once that has all of it, it runs there", async () => {
    const { pid, wanted } = await u.started();
    await u.prepare(wanted, OTHER_RUNTIME);
    await u.switchOver(() => {
      kill(pid);
      return Promise.resolve();
    });
    await u.guests.driver.updates.finish(uid());
    const { pid: second = 0 } = await u.guests.driver.observe(uid());
    await u.expectTidy(second);
    await u.expectRuns(wanted);
    await u.prepare(wanted, RUNTIME);
    kill(second);
    await u.guests.until("exited");
    expect(await u.state()).toBe("gone");
    await u.guests.driver.updates.giveUp(uid());
    expect(await u.guests.machine.processes()).toEqual([]);
  });

  test("agents that die at any step: the next one finds what there is, and goes on", async () => {
    const { wanted } = await u.started();
    let agent = u.guests.driver;
    /** One that has died does nothing more; what it waits for never comes. */
    const nextAgent = async (): Promise<void> => {
      await agent.close();
      agent = u.guests.newDriver();
    };
    const diesInPause = async (): Promise<void> => {
      let reached = (): void => undefined;
      const inPause = new Promise<void>((resolve) => (reached = resolve));
      const dead = u.switchOver(() => (reached(), HANGS), agent);
      dead.catch(() => undefined);
      await inPause;
      await nextAgent();
    };
    await u.prepare(wanted, OTHER_RUNTIME);
    await nextAgent();
    expect(await u.state(agent), "before the switch").toBe("ready");
    await diesInPause();
    expect(await u.state(agent), "in the pause, before it is noted").toBe("held");
    await nextAgent();
    await agent.updates.run(uid());
    await agent.updates.run(uid());
    await nextAgent();
    expect(await u.state(agent), "before the old one has ended").toBe("new");
    await expect(agent.updates.giveUp(uid())).rejects.toThrow("runs in its new QEMU");
    await nextAgent();
    await rename(vm("qmp"), vm("qmp.next"));
    expect(await agent.observe(uid()), "before it has all its names").toMatchObject({
      state: "running",
      note: { run: { runtimeVersion: OTHER_RUNTIME } },
    });
    await agent.updates.finish(uid());
    await agent.updates.finish(uid());
    const { pid } = await agent.observe(uid());
    await u.expectRuns(wanted, agent);

    await agent.updates.prepare(u.to(wanted, RUNTIME), signal);
    await diesInPause();
    const young = await QmpSession.connect(vm("qmp2.next"));
    await young.execute("cont");
    young.close();
    expect(await u.state(agent), "after the word to run").toBe("new");
    await agent.updates.run(uid());
    await nextAgent();
    await agent.updates.finish(uid());
    await u.expectRuns(wanted, agent);
    expect((await agent.observe(uid())).pid).not.toBe(pid);

    await agent.updates.prepare(u.to(wanted, OTHER_RUNTIME), signal);
    await diesInPause();
    await agent.updates.giveUp(uid());
    expect(await u.state(agent), "given up in the pause").toBe("old");
    await u.expectRuns(wanted, agent);
    await agent.close();
    await u.expectTidy((await u.guests.driver.observe(uid())).pid);
  });

  test("an agent that died when the memory had been handed over, and the guest not stopped yet: the next one goes on", async () => {
    const { pid, wanted } = await u.started();
    await u.prepare(wanted, OTHER_RUNTIME);
    const old = await freeMonitor(vm());
    const channel = (type: string) => ({
      "channel-type": type,
      addr: { transport: "socket", type: "unix", path: `/vm/sockets/${type}` },
    });
    await old.execute("migrate-set-capabilities", {
      capabilities: [
        { capability: "events", state: true },
        { capability: "return-path", state: true },
      ],
    });
    await old.execute("migrate-set-parameters", { mode: "cpr-transfer" });
    const notes = new Notes(u.guests.machine.paths);
    await notes.update(uid(), (note) =>
      note.run?.next === undefined ? note : { ...note, run: { ...note.run, next: { ...note.run.next, served: true } } },
    );
    await old.execute("migrate", { channels: [channel("main"), channel("cpr")] });
    old.close();
    expect(await u.state()).toBe("ready");
    await u.switchOver();
    await u.guests.driver.updates.finish(uid());
    const now = await u.guests.driver.observe(uid());
    expect(now.pid).not.toBe(pid);
    await u.expectTidy(now.pid);
    await u.expectRuns(wanted);
  });

  test("a claim without room for a second QEMU is found out before anything is started", async () => {
    const planned = await u.guests.plan("EATER -DEAT_MIB=48", { limitMib: 120 });
    const { pid } = await u.guests.driver.start(planned, signal);
    const cgroups = new ClaimCgroups(u.guests.machine.cgroups);
    const used = async (): Promise<number> => (await cgroups.memory(planned.claimUid))?.usedBytes ?? 0;
    await expect.poll(used, WAIT).toBeGreaterThan(70 * 2 ** 20);
    const said = await refused(u.guests.driver.updates.prepare(u.to(planned, OTHER_RUNTIME), signal));
    expect(said).toMatchObject({ reason: "NoRoomInClaim", message: /of its 120 MiB only \d+ MiB are free/ });
    await u.expectTidy(pid);
  });
});
