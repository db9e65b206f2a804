/** Real QEMU under TCG: what a guest's NIC loses when it gets another QEMU in place. */
import { createSocket } from "node:dgram";
import { readFile } from "node:fs/promises";
import { execa } from "execa";
import { describe, expect, test } from "vitest";
import { stderrFile } from "../../node-agent/instance/qemu/launcher.ts";
import { signal, skipped, unable } from "./qemu/fixture.ts";
import { inGuest } from "./qemu/in-guest.ts";
import { OTHER_RUNTIME, RUNTIME } from "./qemu/machine.ts";
import { useUpdates } from "./qemu/update-fixture.ts";

const EVERY_MS = 2;
const LATEST_MS = 3_000;
const HOST = "10.199.77.1";
const GUEST = "10.199.77.2";
/** The guest's echo. */
const PORT = 7;

describe.skipIf(unable !== undefined)(`the NIC of a guest that gets another QEMU${skipped}`, () => {
  const u = useUpdates(["qemu_announce_self_iter", "virtio_net_announce_notify"]);

  /** Sends a number every 2 ms until told to stop; gives those that never came back, and the longest wait between two answers. */
  async function echoes(while_: () => Promise<void>): Promise<{ sent: number; lost: number[]; silenceMs: number }> {
    const socket = createSocket("udp4");
    const answered = new Set<number>();
    let last = performance.now();
    let silenceMs = 0;
    socket.on("message", (message) => {
      const now = performance.now();
      silenceMs = Math.max(silenceMs, now - last);
      last = now;
      answered.add(message.readUInt32LE());
    });
    let sent = 0;
    const send = (): void => {
      const number = Buffer.alloc(64);
      number.writeUInt32LE(sent++);
      socket.send(number, PORT, GUEST);
    };
    const timer = setInterval(send, EVERY_MS);
    try {
      await new Promise((resolve) => setTimeout(resolve, 200));
      await while_();
      await new Promise((resolve) => setTimeout(resolve, 200));
    } finally {
      clearInterval(timer);
    }
    // a guest that lags behind has not lost them
    const all = (): boolean => answered.size === sent;
    for (const end = Date.now() + LATEST_MS; !all() && Date.now() < end; )
      await new Promise((resolve) => setTimeout(resolve, 20));
    socket.close();
    return { sent, lost: Array.from({ length: sent }, (_, n) => n).filter((n) => !answered.has(n)), silenceMs };
  }

  /** What its present QEMU had told the network, by its trace, in order. */
  async function announcements(): Promise<string[]> {
    const traced = await readFile(stderrFile(u.guests.machine.paths, u.guests.instanceUid), "utf8");
    return Array.from(traced.matchAll(/:(\w*announce\w*) /g), ([, event = ""]) => event);
  }

  /**
   * A QEMU that has stopped its guest reads one packet more before it finds that it cannot deliver it: that one is lost. Two were seen once, on a
   * busy machine; most likely it drops what it holds, and reads again, when its state changes from stopped to handed over.
   */
  const LOST = 2;

  test("loses next to nothing each time, its switch sees no port go down, the network is told once, and the guest still shuts down", async () => {
    const tap = `dqn${process.pid}`;
    try {
      const { wanted } = await u.started(async ({ uid }) => {
        await execa("ip", ["tuntap", "add", tap, "mode", "tap", "user", String(uid)]);
        await execa("ip", ["address", "add", `${HOST}/24`, "dev", tap]);
        await execa("ip", ["link", "set", tap, "up"]);
        return [{ id: "eth0", tap, mac: "02:00:00:00:00:01", mtu: 1442 }];
      });
      const vm = u.guests.machine.paths.instanceVm(u.guests.instanceUid);
      // nobody answers it here, and it would take the address away again
      await inGuest(vm, "/bin/killall", "udhcpc");
      await inGuest(vm, "/bin/ip", "address", "add", `${GUEST}/24`, "dev", "eth0");
      // until it has answered for the first time it is not known where it is
      const answers = async (): Promise<boolean> => (await echoes(() => Promise.resolve())).lost.length === 0;
      await expect.poll(answers, { timeout: 30_000 }).toBe(true);
      const carrierChanges = (): Promise<string> => readFile(`/sys/class/net/${tap}/carrier_changes`, "utf8");
      const changes = await carrierChanges();
      for (const version of [OTHER_RUNTIME, RUNTIME, RUNTIME, OTHER_RUNTIME, RUNTIME]) {
        const { sent, lost, silenceMs } = await echoes(async () => void (await u.update(wanted, version)));
        const marks = u.guests.driver.updates.marks(u.guests.instanceUid);
        const at = (name: string): number => marks.find((mark) => mark.name === name)?.at ?? Number.NaN;
        const figures = `${sent} sent, ${lost.length} lost, longest silence ${Math.round(silenceMs)} ms, pause ${(at("resumed") - at("stopped")).toFixed(1)} ms`;
        if (process.env["DROVER_FIGURES"] !== undefined) process.stderr.write(`${figures}\n`);
        expect([figures, lost.length <= LOST]).toEqual([figures, true]);
        expect(await announcements()).toEqual(["qemu_announce_self_iter", "virtio_net_announce_notify"]);
      }
      expect(await carrierChanges()).toBe(changes);
      expect((await readFile(`/sys/class/net/${tap}/carrier`, "utf8")).trim()).toBe("1");
      await u.expectRuns(wanted);
      // as it goes down, it resets its NIC, and a QEMU that had nothing to announce would crash there
      await u.guests.driver.stop(u.guests.instanceUid, { mode: "clean", deadlineMs: 60_000 }, signal);
      const { exit } = await u.guests.driver.observe(u.guests.instanceUid);
      expect(exit).toMatchObject({ reason: "Stopped", message: "the guest has shut down as asked" });
      expect(await u.guests.driver.consoleTail(u.guests.instanceUid, 600)).toContain("Power down");
    } finally {
      await execa("ip", ["link", "del", tap], { reject: false });
    }
  });
});
