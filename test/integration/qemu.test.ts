/** Real QEMU under TCG, through the real launcher, in cgroups made as the kubelet makes them. */
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { chmod, readdir, readFile, readlink, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { silentLogger } from "../../kube/logger.ts";
import { UserError } from "../../node-agent/errors.ts";
import type { MachinePlan, Observed } from "../../node-agent/instance/driver.ts";
import { QemuDriver } from "../../node-agent/instance/qemu/driver.ts";
import { enterArguments } from "../../node-agent/instance/qemu/launcher.ts";
import { isAlive, processNow } from "../../node-agent/ovs/process.ts";
import { BOOT_SECTOR, probe } from "../../node-agent/instance/qemu/probe.ts";
import { QmpSession } from "../../node-agent/instance/qemu/qmp/session.ts";
import { assemble, cannotRunGuests, makeMachine, RUNTIME, type GuestKind, type Machine } from "./qemu/machine.ts";

const reason = await cannotRunGuests();
const signal = AbortSignal.timeout(600_000);
/** On hybrid systems: a v2 hierarchy without controllers, good for joining and finding. */
const UNIFIED = "/sys/fs/cgroup/unified";
const hasUnified = existsSync(join(UNIFIED, "cgroup.controllers"));
const WAIT = { timeout: 20_000, interval: 20 };

describe.skipIf(reason !== undefined)(`QEMU under the driver${reason === undefined ? "" : ` (skipped: ${reason})`}`, () => {
  let machine: Machine;
  let driver: QemuDriver;
  let instanceUid: string;

  beforeAll(async () => {
    process.env["DROVER_NODE_PID"] = String(process.pid);
    machine = await makeMachine();
  }, 300_000);
  afterAll(() => machine.remove());

  const newDriver = (): QemuDriver => new QemuDriver({ paths: machine.paths, log: silentLogger, cgroups: machine.cgroups });

  beforeEach(() => {
    driver = newDriver();
    instanceUid = randomUUID();
  });
  afterEach(async () => {
    for (const uid of await driver.list()) {
      await driver.stop(uid, { mode: "force", deadlineMs: 0 }, signal);
      await driver.forget(uid);
    }
    await driver.close();
    await expectNothingLeft();
  });

  async function expectNothingLeft(): Promise<void> {
    expect(await machine.processes()).toEqual([]);
    expect(await readdir(machine.paths.instances)).toEqual([]);
  }

  async function plan(kind: GuestKind, options: { memoryMib?: number; limitMib?: number } = {}): Promise<MachinePlan> {
    const owner = await driver.prepare({ instanceUid, namespace: "test", name: "guest" });
    const made = await machine.plan(kind, {
      instanceUid,
      owner,
      ...(options.memoryMib === undefined ? {} : { memoryMib: options.memoryMib }),
    });
    return { ...made, claimUid: await machine.pod(options.limitMib) };
  }

  async function start(kind: GuestKind, options?: Parameters<typeof plan>[1]): Promise<{ pid: number; wanted: MachinePlan }> {
    const wanted = await plan(kind, options);
    return { wanted, ...(await driver.start(wanted, signal)) };
  }

  const booted = (): Promise<void> => expect.poll(() => driver.consoleTail(instanceUid, 1000), WAIT).toContain("GUEST");

  /** Waits, by events alone, until the driver sees this state. */
  async function until(state: Observed["state"], by: QemuDriver = driver): Promise<Observed> {
    let seen = await by.observe(instanceUid);
    const deadline = AbortSignal.timeout(20_000);
    while (seen.state !== state && !deadline.aborted) {
      await new Promise<void>((resolve) => {
        const unwatch = by.watch(instanceUid, done);
        deadline.addEventListener("abort", done);
        function done(): void {
          unwatch();
          deadline.removeEventListener("abort", done);
          resolve();
        }
      });
      seen = await by.observe(instanceUid);
    }
    expect(seen.state).toBe(state);
    return seen;
  }

  /** An agent in a process of its own has started the guest and was killed. */
  async function startedByKilledAgent(wanted: MachinePlan): Promise<number> {
    const task = {
      root: machine.paths.root,
      runtimes: join(machine.paths.runtime("x"), ".."),
      cgroups: machine.cgroups,
      plan: wanted,
    };
    const agent = spawn(process.execPath, [new URL("qemu/agent.ts", import.meta.url).pathname], {
      env: { ...process.env, AGENT_TASK: JSON.stringify(task) },
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [line] = (await once(agent.stdout, "data")) as [Buffer];
    agent.kill("SIGKILL");
    await once(agent, "exit");
    return Number(line.toString());
  }

  test("runs confined: own user, no capability, seccomp, own root with its own disks only", async () => {
    const { pid, wanted } = await start("IDLE");
    await booted();
    const status = await readFile(`/proc/${pid}/status`, "utf8");
    const field = (name: string): string | undefined =>
      new RegExp(`^${name}:[ \\t]*(.*)$`, "m").exec(status)?.[1]?.replaceAll("\t", " ");
    const { uid } = wanted.identity;
    expect(field("Uid")).toBe(`${uid} ${uid} ${uid} ${uid}`);
    expect(field("Gid")).toBe(`${uid} ${uid} ${uid} ${uid}`);
    expect(field("Groups")?.trim()).toBe("");
    for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) expect(field(set)).toBe("0000000000000000");
    expect([field("NoNewPrivs"), field("Seccomp")]).toEqual(["1", "2"]);
    expect((await readFile(`/proc/${pid}/oom_score_adj`, "utf8")).trim()).toBe("0");

    const mounts = (await readFile(`/proc/${pid}/mounts`, "utf8"))
      .trim()
      .split("\n")
      .map((line) => line.split(" "));
    expect(mounts.map(([, point, , options]) => `${point} ${options?.split(",")[0]}`)).toEqual([
      "/ ro",
      "/usr ro",
      "/vm ro",
      "/proc rw",
      "/disks/p1 rw",
    ]);
    expect((await readdir(`/proc/${pid}/root/dev`)).sort()).toEqual(["full", "net", "null", "random", "urandom", "zero"]);
    expect(await readdir(`/proc/${pid}/root/disks/p1`)).toEqual(["root.raw"]);
    // what the guest's process could write to: its disk, its console, its own sockets
    const open = await Promise.all(
      (await readdir(`/proc/${pid}/fd`)).map((fd) => readlink(`/proc/${pid}/fd/${fd}`).catch(() => "")),
    );
    const files = open.filter((target) => target.startsWith("/") && !target.startsWith("/dev/") && !target.startsWith("/memfd:"));
    expect(new Set(files)).toEqual(
      new Set([
        join(machine.paths.instance(instanceUid), "lock"),
        join(machine.paths.instance(instanceUid), "stderr.log"),
        join(machine.paths.instanceVm(instanceUid), "console.log"),
        "/disks/p1/root.raw",
      ]),
    );

    const cgroups = (await readFile(`/proc/${pid}/cgroup`, "utf8"))
      .trim()
      .split("\n")
      .map((line) => line.split(":")[2]);
    expect(new Set(cgroups)).toEqual(new Set([`/${machine.cgroups.parent}/kubepods/burstable/pod${wanted.claimUid}/drover`]));
    expect(await driver.observe(instanceUid)).toMatchObject({
      state: "running",
      pid,
      claimUid: wanted.claimUid,
      runState: "running",
      guestAgentOpen: false,
      note: { run: { pid, machineType: "pc-q35-10.0", qemuVersion: expect.stringMatching(/^10\./) as string } },
    });
  });

  test("starting twice, also at the same time, is starting once", async () => {
    const wanted = await plan("IDLE");
    const pids = await Promise.all([driver.start(wanted, signal), driver.start(wanted, signal), driver.start(wanted, signal)]);
    expect(new Set(pids.map(({ pid }) => pid)).size).toBe(1);
    expect(await machine.processes()).toEqual([pids[0]?.pid]);
    await expect(driver.start({ ...wanted, claimUid: await machine.pod() }, signal)).rejects.toMatchObject({
      reason: "RunsInOtherClaim",
    });
  });

  test("a second launcher of the same instance is refused while the first one's QEMU lives", async () => {
    const { wanted } = await start("IDLE");
    const place = {
      paths: machine.paths,
      cgroupRoot: "/sys/fs/cgroup",
      cgroup: `${machine.cgroups.parent}/kubepods/burstable/pod${wanted.claimUid}`,
    };
    const args = enterArguments(wanted, place).slice(2); // without --ready
    const second = await execa(join(machine.paths.runtime(RUNTIME), "enter"), args, { reject: false });
    expect(second.exitCode).toBe(70);
    expect(second.stderr).toContain("the instance has a running QEMU already");
    expect((await machine.processes()).length).toBe(1);
  });

  test.each<[string, Record<string, string[]>, string]>([
    ["no such pod", { "--cgroup": ["kubepods/podnone"] }, "there is no cgroup /sys/fs/cgroup/memory/kubepods/podnone"],
    ["a way out of the cgroups", { "--cgroup": ["kubepods/../../x"] }, "--cgroup must be relative, without .."],
    ["root", { "--uid": ["0"] }, "--uid must be a number from 1 to 2147483647"],
    ["no number", { "--gid": ["100000x"] }, "--gid must be a number"],
    ["a pool with a slash", { "--disk": ["../p=/tmp"] }, "--disk: not a pool's name"],
    ["a disk elsewhere by ..", { "--disk": ["p=/var/lib/../../etc"] }, "--disk must be an absolute path without .."],
    ["a socket elsewhere", { "--listen": ["3=../qmp"] }, "--listen and --append take FD=NAME"],
    ["standard output as a socket", { "--listen": ["1=qmp"] }, "a descriptor must be a number from 3 to 62"],
    ["no runtime", { "--runtime": ["/nonexistent"] }, "cannot open /nonexistent: No such file or directory"],
  ])("the launcher refuses %s", async (_, change, words) => {
    await driver.prepare({ instanceUid, namespace: "test", name: "guest" });
    const options = {
      "--cgroup": [`${machine.cgroups.parent}/kubepods/burstable/pod${await machine.pod()}`],
      "--runtime": [machine.paths.runtime(RUNTIME)],
      "--instance": [machine.paths.instance(instanceUid)],
      "--uid": ["100000"],
      "--gid": ["100000"],
      ...change,
    };
    const args = Object.entries(options).flatMap(([name, values]) => values.flatMap((value) => [name, value]));
    const enter = join(machine.paths.runtime(RUNTIME), "enter");
    const { exitCode, stderr } = await execa(enter, [...args, "--", "/usr/bin/busybox", "true"], { reject: false });
    expect({ exitCode, stderr }).toEqual({ exitCode: 70, stderr: expect.stringContaining(words) as string });
  });

  test.skipIf(!hasUnified)("one hierarchy, as on cgroup v2", async () => {
    const v2 = new QemuDriver({
      paths: machine.paths,
      log: silentLogger,
      cgroupRoot: UNIFIED,
      cgroups: { root: UNIFIED, parent: machine.cgroups.parent },
    });
    const { pid } = await v2.start(await plan("SHUTDOWN -DTICKS=20"), signal);
    const cgroup = (await readFile(`/proc/${pid}/cgroup`, "utf8")).split("\n").find((line) => line.startsWith("0::"));
    expect(cgroup).toMatch(/kubepods\/burstable\/pod[-0-9a-f]+\/drover$/);
    expect(await until("exited", v2)).toMatchObject({ exit: { reason: "GuestShutdown" } });
    await v2.forget(instanceUid);
    await v2.close();
  });

  test("the agent is killed: a new one has the same process within 2 s, and sees its events", async () => {
    const pid = await startedByKilledAgent(await plan("POLITE"));
    const from = performance.now();
    const [seen] = await Promise.all((await driver.list()).map((uid) => driver.observe(uid)));
    const took = performance.now() - from;
    expect(seen).toMatchObject({ state: "running", pid });
    expect(took).toBeLessThan(2000);
    await booted();
    await driver.stop(instanceUid, { mode: "clean", deadlineMs: 15_000 }, signal);
    expect(await until("exited")).toMatchObject({ exit: { reason: "Stopped", message: "the guest has shut down as asked" } });
  });

  test("a guest that shuts down is seen by an event, and QEMU is ended", async () => {
    const { pid } = await start("SHUTDOWN -DTICKS=20");
    const id = await processNow(pid);
    expect(await until("exited")).toMatchObject({ exit: { reason: "GuestShutdown" } });
    expect(id && (await isAlive(id))).toBe(false);
  });

  test("a guest that panics is told from one that shuts down", async () => {
    await start("PANIC");
    expect(await until("exited")).toMatchObject({ exit: { reason: "GuestPanicked" } });
  });

  test("a guest that shut down while no agent was there is told from a crash by the next agent", async () => {
    const pid = await startedByKilledAgent(await plan("SHUTDOWN -DTICKS=1"));
    await expect
      .poll(() => readFile(join(machine.paths.instanceVm(instanceUid), "console.log"), "utf8"), WAIT)
      .toContain("GUEST");
    await new Promise((resolve) => setTimeout(resolve, 1000));
    expect((await processNow(pid))?.pid).toBe(pid);
    expect(await until("exited")).toMatchObject({ exit: { reason: "GuestShutdown" } });
    expect(await processNow(pid)).toBeUndefined();
  });

  test("a clean stop presses the power button; a deaf guest is forced after the deadline", async () => {
    await start("POLITE");
    await booted();
    await driver.stop(instanceUid, { mode: "clean", deadlineMs: 15_000 }, signal);
    expect(await driver.observe(instanceUid)).toMatchObject({
      state: "exited",
      exit: { message: "the guest has shut down as asked" },
    });

    await driver.forget(instanceUid);
    await start("IDLE");
    await booted();
    const from = performance.now();
    await driver.stop(instanceUid, { mode: "clean", deadlineMs: 3000 }, signal);
    expect(performance.now() - from).toBeGreaterThan(2900);
    expect(await driver.observe(instanceUid)).toMatchObject({
      state: "exited",
      exit: { reason: "Stopped", message: "stopped as asked" },
    });
  });

  test("a guest above its claim's memory limit: seen, and named", async () => {
    await start("EATER -DEAT_MIB=200", { memoryMib: 256, limitMib: 150 });
    expect(await until("exited")).toMatchObject({ exit: { reason: "MemoryLimit" } });
    // and by an agent that was not there
    const other = newDriver();
    expect(await other.observe(instanceUid)).toMatchObject({ state: "exited", exit: { reason: "MemoryLimit" } });
    await other.close();
  });

  test("a QEMU that hangs is not taken for ended; a forced stop ends it all the same", async () => {
    const { pid } = await start("IDLE");
    process.kill(pid, "SIGSTOP");
    expect(await driver.observe(instanceUid)).toMatchObject({ state: "running", pid, runState: "not-answering" });
    await driver.stop(instanceUid, { mode: "force", deadlineMs: 0 }, signal);
    expect(await driver.observe(instanceUid)).toMatchObject({ state: "exited", exit: { reason: "Stopped" } });
  });

  test("QEMU killed by someone: told by its parent, guessed by no one else", async () => {
    const { pid, wanted } = await start("IDLE");
    process.kill(pid, "SIGKILL");
    expect(await until("exited")).toMatchObject({ exit: { reason: "Killed" } });

    const again = await startedByKilledAgent(wanted);
    expect(await until("running")).toMatchObject({ pid: again });
    process.kill(again, "SIGKILL");
    expect(await until("exited")).toMatchObject({ exit: { reason: "Unknown" } });
  });

  test("the claim pod is taken away with its cgroup", async () => {
    const { wanted } = await start("IDLE");
    await machine.removePod(wanted.claimUid);
    expect((await until("exited")).exit?.reason).toMatch(/ClaimGone|Killed/);
    await driver.start({ ...wanted, claimUid: await machine.pod() }, signal);
    expect(await driver.observe(instanceUid)).toMatchObject({ state: "running" });
  });

  describe("a start that fails says why, and leaves nothing running", () => {
    async function failure(wanted: MachinePlan): Promise<UserError> {
      const error = await driver.start(wanted, signal).then(
        () => undefined,
        (e: unknown) => e,
      );
      expect(error).toBeInstanceOf(UserError);
      expect(await machine.processes()).toEqual([]);
      expect(await driver.observe(instanceUid)).toMatchObject({ state: "absent" });
      return error as UserError;
    }

    test("QEMU's own words", async () => {
      const wanted = await plan("IDLE");
      expect((await failure({ ...wanted, machineType: "pc-q35-99.0" })).message).toContain("unsupported machine type");
      expect((await failure({ ...wanted, cpuModel: "Haswell-v1" })).message).toContain("TCG doesn't support requested feature");
      // healed when mended
      await driver.start(wanted, signal);
    });

    test("a disk that QEMU may not open, or that is not there", async () => {
      const wanted = await plan("IDLE");
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
      expect(await failure(await plan("IDLE", { limitMib: 8 }))).toMatchObject({ reason: "MemoryLimit" });
    });

    test("a tap that is not there", async () => {
      const wanted = await plan("IDLE");
      const nics = [{ id: "eth0", tap: "dqtnothere", mac: "02:00:00:00:00:01", mtu: 1442, queues: 2 }];
      expect(await failure({ ...wanted, nics })).toMatchObject({ reason: "TapMissing" });
    });

    test("a runtime or a claim that is not there", async () => {
      const wanted = await plan("IDLE");
      expect(await failure({ ...wanted, runtimeVersion: "none" })).toMatchObject({ reason: "RuntimeMissing" });
      const cancel = AbortSignal.timeout(300);
      await expect(driver.start({ ...wanted, claimUid: randomUUID() }, cancel)).rejects.toThrow("aborted");
      expect(await driver.observe(instanceUid)).toMatchObject({ state: "absent" });
    });
  });

  test("a tap is opened without any capability", async () => {
    const wanted = await plan("IDLE");
    const tap = `dqt${process.pid}`;
    await execa("ip", ["tuntap", "add", tap, "mode", "tap", "multi_queue", "user", String(wanted.identity.uid)]);
    try {
      await execa("ip", ["link", "set", tap, "up"]);
      const nics = [{ id: "eth0", tap, mac: "02:00:00:00:00:01", mtu: 1442, queues: 2 }];
      await driver.start({ ...wanted, nics }, signal);
      expect((await readFile(`/sys/class/net/${tap}/carrier`, "utf8")).trim()).toBe("1");
      await driver.stop(instanceUid, { mode: "force", deadlineMs: 0 }, signal);
    } finally {
      await execa("ip", ["link", "del", tap]);
    }
  });

  test("a guest that never stops talking does not fill the node's disk", async () => {
    await start("CHATTER");
    const vm = machine.paths.instanceVm(instanceUid);
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
    expect((await driver.consoleTail(instanceUid, 500)).length).toBe(500);
  });

  test("Linux: its guest agent is seen to come, a reset happens in place, it shuts down when asked", async () => {
    const wanted = await plan("LINUX", { memoryMib: 192 });
    const { pid } = await driver.start({ ...wanted, cpus: 2 }, signal);
    await guestAgentOpens();
    await expect.poll(() => driver.pingGuestAgent(instanceUid, 2000), WAIT).toBe(true);
    expect(await driver.consoleTail(instanceUid, 100_000)).toContain("GUEST ready");

    const qmp = await QmpSession.connect(join(machine.paths.instanceVm(instanceUid), "qmp2"));
    await qmp.execute("system_reset");
    qmp.close();
    await expect.poll(async () => (await driver.consoleTail(instanceUid, 100_000)).split("GUEST ready").length, WAIT).toBe(3);
    await expect.poll(() => driver.pingGuestAgent(instanceUid, 2000), WAIT).toBe(true);
    expect(await driver.observe(instanceUid)).toMatchObject({ state: "running", pid });

    const from = performance.now();
    await driver.stop(instanceUid, { mode: "clean", deadlineMs: 30_000 }, signal);
    expect(performance.now() - from).toBeLessThan(15_000); // before the power button, which comes after half of the time
    expect(await driver.observe(instanceUid)).toMatchObject({ exit: { reason: "Stopped", message: "the guest has shut down as asked" } });
  });

  /** Waits for it by events alone. */
  function guestAgentOpens(): Promise<void> {
    return new Promise((resolve, reject) => {
      const unwatch = driver.watch(instanceUid, () => {
        driver.observe(instanceUid).then((seen) => seen.guestAgentOpen && finish(), reject);
      });
      const timer = setTimeout(() => reject(new Error("no guest agent within 60 s")), 60_000);
      function finish(): void {
        clearTimeout(timer);
        unwatch();
        resolve();
      }
    });
  }

  test("a runtime may be removed from under a running guest: it runs on, and can be asked and stopped", async () => {
    const copy = `${RUNTIME}-copy-${process.pid}`;
    await execa("cp", ["-al", machine.paths.runtime(RUNTIME), machine.paths.runtime(copy)]);
    try {
      const { pid } = await driver.start({ ...(await plan("POLITE")), runtimeVersion: copy }, signal);
      await booted();
      await rm(machine.paths.runtime(copy), { recursive: true });
      expect(await readdir(`/proc/${pid}/root/disks/p1`)).toEqual(["root.raw"]);
      await driver.stop(instanceUid, { mode: "clean", deadlineMs: 15_000 }, signal);
      expect(await driver.observe(instanceUid)).toMatchObject({ exit: { message: "the guest has shut down as asked" } });
    } finally {
      await rm(machine.paths.runtime(copy), { recursive: true, force: true });
    }
  });

  test("the probe runs a guest: here by emulation, and it says why", async () => {
    const facts = await probe({ paths: machine.paths, runtimeVersion: RUNTIME });
    expect(facts.machineTypes[0]).toMatch(/^pc-q35-\d+\.\d+$/);
    expect(facts.qemuVersion).toMatch(/^\d+\.\d+\.\d+$/);
    expect(facts.accelerator === "TCG").toBe(facts.acceleratorMessage !== undefined);
    expect(facts.cpuModel).toMatch(facts.accelerator === "TCG" ? /^Westmere-v1$/ : /-v\d$/);
    expect((await readdir(machine.paths.root)).filter((name) => name.startsWith("probe-"))).toEqual([]);
    await expect(probe({ paths: machine.paths, runtimeVersion: "none" })).rejects.toMatchObject({ reason: "NoAccelerator" });
  });

  test("the probe's guest is what its source says", async () => {
    expect(BOOT_SECTOR.equals(await readFile(await assemble("probe.S")))).toBe(true);
  });

  test("instances get users of their own, the smallest free ones", async () => {
    const uids = [randomUUID(), randomUUID(), randomUUID()];
    const prepare = (uid: string): Promise<{ uid: number }> => driver.prepare({ instanceUid: uid, namespace: "n", name: "i" });
    const made = await Promise.all(uids.map(prepare));
    expect(made.map(({ uid }) => uid)).toEqual([100_000, 100_001, 100_002]);
    await driver.forget(uids[1] ?? "");
    expect((await prepare(randomUUID())).uid).toBe(100_001);
    expect((await prepare(uids[2] ?? "")).uid).toBe(100_002);
    expect((await driver.list()).length).toBe(3);
    await expect(driver.prepare({ instanceUid: "../../etc", namespace: "n", name: "i" })).rejects.toThrow("not a uid");
  });
});
