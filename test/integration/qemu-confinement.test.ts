/** Real QEMU under TCG: where it runs, what it can reach, and what the launcher refuses. */
import { existsSync } from "node:fs";
import { readdir, readFile, readlink, rm } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { describe, expect, test } from "vitest";
import { silentLogger } from "../../kube/logger.ts";
import { QemuDriver } from "../../node-agent/instance/qemu/driver.ts";
import { enterArguments } from "../../node-agent/instance/qemu/launcher.ts";
import { signal, skipped, unable, useGuests } from "./qemu/fixture.ts";
import { RUNTIME } from "./qemu/machine.ts";

/** On hybrid systems: a v2 hierarchy without controllers, good for joining and finding. */
const UNIFIED = "/sys/fs/cgroup/unified";
const hasUnified = existsSync(join(UNIFIED, "cgroup.controllers"));

describe.skipIf(unable !== undefined)(`confinement of guests${skipped}`, () => {
  const guests = useGuests();

  test("runs confined: own user, no capability, seccomp, own root with its own disks only", async () => {
    const { pid, wanted } = await guests.start("IDLE");
    await guests.booted();
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
        join(guests.machine.paths.instance(guests.instanceUid), "lock"),
        join(guests.machine.paths.instance(guests.instanceUid), "stderr.log"),
        join(guests.machine.paths.instanceVm(guests.instanceUid), "console.log"),
        "/disks/p1/root.raw",
      ]),
    );

    const cgroups = (await readFile(`/proc/${pid}/cgroup`, "utf8"))
      .trim()
      .split("\n")
      .map((line) => line.split(":")[2]);
    expect(new Set(cgroups)).toEqual(
      new Set([`/${guests.machine.cgroups.parent}/kubepods/burstable/pod${wanted.claimUid}/drover`]),
    );
    expect(await guests.driver.observe(guests.instanceUid)).toMatchObject({
      state: "running",
      pid,
      claimUid: wanted.claimUid,
      runState: "running",
      guestAgentOpen: false,
      note: { run: { pid, machineType: "pc-q35-10.0", qemuVersion: expect.stringMatching(/^10\./) as string } },
    });
  });

  test("a second launcher of the same instance is refused while the first one's QEMU lives", async () => {
    const { wanted } = await guests.start("IDLE");
    const place = {
      paths: guests.machine.paths,
      cgroupRoot: "/sys/fs/cgroup",
      cgroup: `${guests.machine.cgroups.parent}/kubepods/burstable/pod${wanted.claimUid}`,
    };
    const args = enterArguments(wanted, place).slice(2); // without --ready
    const second = await execa(join(guests.machine.paths.runtime(RUNTIME), "enter"), args, { reject: false });
    expect(second.exitCode).toBe(70);
    expect(second.stderr).toContain("the instance has a running QEMU already");
    expect((await guests.machine.processes()).length).toBe(1);
  });

  test.each<[string, Record<string, string[]>, string]>([
    ["no such pod", { "--cgroup": ["kubepods/podnone"] }, "there is no cgroup /sys/fs/cgroup/memory/kubepods/podnone"],
    ["a way out of the cgroups", { "--cgroup": ["kubepods/../../x"] }, "--cgroup must be relative, without .."],
    ["root", { "--uid": ["0"] }, "--uid must be a number from 1 to 2147483647"],
    ["no number", { "--gid": ["100000x"] }, "--gid must be a number"],
    ["a pool with a slash", { "--disk": ["../p=/tmp"] }, "--disk: not a pool's name"],
    ["a disk elsewhere by ..", { "--disk": ["p=/var/lib/../../etc"] }, "--disk must be an absolute path without .."],
    ["a socket elsewhere", { "--listen": ["3=../qmp"] }, "--listen, --append and --take-tap take FD=NAME"],
    ["standard output as a socket", { "--listen": ["1=qmp"] }, "a descriptor must be a number from 3 to 62"],
    ["a lock elsewhere", { "--lock": ["../lock"] }, "--lock: not a file's name"],
    ["a directory of sockets elsewhere", { "--sockets": ["a/b"] }, "--sockets: not a directory's name"],
    ["a directory of sockets that is not there", { "--sockets": ["none"] }, "cannot open none: No such file or directory"],
    ["a tap of nobody", { "--take-tap": ["7=tap0"] }, "--take-tap needs --from"],
    ["a tap of no process", { "--from": ["0"], "--take-tap": ["7=tap0"] }, "--from must be a number from 1 to 2147483647"],
    [
      "a tap that the process does not have",
      { "--from": [String(process.pid)], "--take-tap": ["7=tap0"] },
      `process ${process.pid} does not have tap tap0 open`,
    ],
    [
      "a tap of a process that is gone",
      { "--from": ["2147483646"], "--take-tap": ["7=tap0"] },
      "cannot open the process of --from",
    ],
    ["no runtime", { "--runtime": ["/nonexistent"] }, "cannot open /nonexistent: No such file or directory"],
  ])("the launcher refuses %s", async (_, change, words) => {
    await guests.driver.prepare({ instanceUid: guests.instanceUid, namespace: "test", name: "guest" });
    const options = {
      "--cgroup": [`${guests.machine.cgroups.parent}/kubepods/burstable/pod${await guests.machine.pod()}`],
      "--runtime": [guests.machine.paths.runtime(RUNTIME)],
      "--instance": [guests.machine.paths.instance(guests.instanceUid)],
      "--uid": ["100000"],
      "--gid": ["100000"],
      ...change,
    };
    const args = Object.entries(options).flatMap(([name, values]) => values.flatMap((value) => [name, value]));
    const enter = join(guests.machine.paths.runtime(RUNTIME), "enter");
    const { exitCode, stderr } = await execa(enter, [...args, "--", "/usr/bin/busybox", "true"], { reject: false });
    expect({ exitCode, stderr }).toEqual({ exitCode: 70, stderr: expect.stringContaining(words) as string });
  });

  test.skipIf(!hasUnified)("one hierarchy, as on cgroup v2", async () => {
    const v2 = new QemuDriver({
      paths: guests.machine.paths,
      log: silentLogger,
      cgroupRoot: UNIFIED,
      cgroups: { root: UNIFIED, parent: guests.machine.cgroups.parent },
    });
    const { pid } = await v2.start(await guests.plan("SHUTDOWN -DTICKS=20"), signal);
    const cgroup = (await readFile(`/proc/${pid}/cgroup`, "utf8")).split("\n").find((line) => line.startsWith("0::"));
    expect(cgroup).toMatch(/kubepods\/burstable\/pod[-0-9a-f]+\/drover$/);
    expect(await guests.until("exited", v2)).toMatchObject({ exit: { reason: "GuestShutdown" } });
    await v2.forget(guests.instanceUid);
    await v2.close();
  });

  test("a runtime may be removed from under a running guest: it runs on, and can be asked and stopped", async () => {
    const copy = `${RUNTIME}-copy-${process.pid}`;
    await execa("cp", ["-al", guests.machine.paths.runtime(RUNTIME), guests.machine.paths.runtime(copy)]);
    try {
      const { pid } = await guests.driver.start({ ...(await guests.plan("POLITE")), runtimeVersion: copy }, signal);
      await guests.booted();
      await rm(guests.machine.paths.runtime(copy), { recursive: true });
      expect(await readdir(`/proc/${pid}/root/disks/p1`)).toEqual(["root.raw"]);
      await guests.driver.stop(guests.instanceUid, { mode: "clean", deadlineMs: 15_000 }, signal);
      expect(await guests.driver.observe(guests.instanceUid)).toMatchObject({
        exit: { message: "the guest has shut down as asked" },
      });
    } finally {
      await rm(guests.machine.paths.runtime(copy), { recursive: true, force: true });
    }
  });
});
