/**
 * Guests are made so that their QEMU can be replaced under them, in place: RAM in a shared memfd, taps that two processes can
 * have open. Here it is done by hand, for the agent does not do it yet.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chown, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { describe, expect, test } from "vitest";
import { commandLine, QEMU } from "../../node-agent/instance/qemu/command-line.ts";
import { pingGuestAgent } from "../../node-agent/instance/qemu/guest-agent.ts";
import { enterArguments } from "../../node-agent/instance/qemu/launcher.ts";
import { QmpSession } from "../../node-agent/instance/qemu/qmp/session.ts";
import { signal, skipped, unable, useGuests, WAIT } from "./qemu/fixture.ts";
import { RUNTIME } from "./qemu/machine.ts";

const channel = (type: string, path: string) => ({
  "channel-type": type,
  addr: { transport: "socket", type: "unix", path },
});

describe.skipIf(unable !== undefined)(`replacing QEMU under a guest${skipped}`, () => {
  const guests = useGuests();

  test("another QEMU, confined alike, takes the guest over with its memory and its tap", async () => {
    const { machine, driver } = guests;
    const planned = await guests.plan("LINUX", { memoryMib: 192 });
    const tap = `dqt${process.pid}`;
    await execa("ip", ["tuntap", "add", tap, "mode", "tap", "multi_queue", "user", String(planned.identity.uid)]);
    try {
      await execa("ip", ["link", "set", tap, "up"]);
      const nics = [{ id: "eth0", tap, mac: "02:00:00:00:00:01", mtu: 1442, queues: 2 }];
      const wanted = { ...planned, nics, disks: planned.disks.map((disk) => ({ ...disk, direct: true })) };
      const { pid } = await driver.start(wanted, signal);
      await expect.poll(() => driver.pingGuestAgent(guests.instanceUid, 1000), { timeout: 60_000 }).toBe(true);

      const next = join(machine.paths.root, "next");
      await mkdir(join(next, "vm"), { recursive: true });
      // where the new one listens is seen by the old one as /vm/next
      const sockets = join(machine.paths.instanceVm(guests.instanceUid), "next");
      await mkdir(sockets);
      await chown(sockets, wanted.identity.uid, wanted.identity.gid);
      const cgroup = `${machine.cgroups.parent}/kubepods/burstable/pod${wanted.claimUid}`;
      const place = { paths: { ...machine.paths, instance: () => next }, cgroupRoot: machine.cgroups.root, cgroup };
      const launcher = enterArguments(wanted, place).slice(2);
      const options = launcher.slice(0, launcher.indexOf("--"));
      const incoming = ["main", "cpr"].flatMap((type) => ["-incoming", JSON.stringify(channel(type, `/disks/next/${type}`))]);
      const enter = join(machine.paths.runtime(RUNTIME), "enter");
      const args = [...options, "--disk", `next=${sockets}`, "--", QEMU, ...commandLine(wanted), ...incoming];
      const replacement = spawn(enter, args, { stdio: "ignore" });
      const listening = (): Promise<boolean> =>
        execa("test", ["-S", join(sockets, "cpr")], { reject: false }).then((r) => r.exitCode === 0);
      await expect.poll(listening, WAIT).toBe(true);

      const old = await QmpSession.connect(join(machine.paths.instanceVm(guests.instanceUid), "qmp2"));
      await old.execute("migrate-set-parameters", { mode: "cpr-transfer" });
      await old.execute("migrate", { channels: [channel("main", "/vm/next/main"), channel("cpr", "/vm/next/cpr")] });
      const young = await QmpSession.connect(join(next, "vm", "qmp"), { deadlineMs: 20_000 });
      await expect.poll(() => old.execute("query-migrate"), WAIT).toMatchObject({ status: "completed" });
      await expect.poll(() => young.execute("query-status"), WAIT).toMatchObject({ status: "running" });
      expect(replacement.pid).not.toBe(pid);
      old.close();
      await driver.stop(guests.instanceUid, { mode: "force", deadlineMs: 0 }, signal);
      expect(await pingGuestAgent(join(next, "vm", "qga"), 5000)).toBe(true);
      const ended = once(replacement, "exit");
      await young.execute("quit");
      await ended;
    } finally {
      await execa("ip", ["link", "del", tap], { reject: false });
    }
  });
});
