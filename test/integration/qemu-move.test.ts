/** Real QEMUs under TCG: a guest moves from one to the other. */
import { createServer } from "node:net";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { chown, readFile, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { execa } from "execa";
import { describe, expect, test } from "vitest";
import type { MachinePlan } from "../../node-agent/instance/driver.ts";
import { queryMigrate } from "../../node-agent/instance/qemu/move/commands.ts";
import { monitorOf } from "../../node-agent/instance/qemu/move/parts.ts";
import { portsFrom } from "../../node-agent/instance/qemu/move/ports.ts";
import { signal, skipped, unable, WAIT } from "./qemu/fixture.ts";
import {
  ADDRESS,
  ask,
  countOpen,
  dirty,
  expectNoTrace,
  expectRuns,
  logOf,
  newSecret,
  PORTS,
  useMoves,
  type Node,
} from "./qemu/move-fixture.ts";

/** What a second program says that opens a disk to write to it, with the locks that are usual; empty: it may. */
async function writes(disk: string): Promise<string> {
  const { size } = await stat(disk);
  const { stderr } = await execa("qemu-img", ["resize", "-q", "-f", "raw", disk, String(size)], {
    reject: false,
    timeout: 10_000,
  });
  return stderr;
}
const REFUSED = /Failed to get "write" lock/;

const stderrOf = ({ machine }: Node, { instanceUid }: MachinePlan): Promise<string> =>
  readFile(join(machine.paths.instance(instanceUid), "stderr.log"), "utf8");

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

describe.skipIf(unable !== undefined)(`live moves${skipped}`, () => {
  const t = useMoves();

  test.each([
    ["in clear", undefined, 0],
    ["by TLS", newSecret(), 0],
    ["by several connections", undefined, 2],
    ["by several connections with TLS", newSecret(), 2],
  ])("a guest moves %s; its log has no gap", async (_, secret, streams) => {
    const plan = await t.start();
    await dirty(t.a, t.instanceUid, 20, 32);
    const atSource = t.events(t.a);
    const arrived = await t.move(t.a, t.b, plan, { secret, streams });
    expect(await t.a.driver.observe(t.instanceUid)).toMatchObject({ state: "paused", runState: "postmigrate" });
    expect(await t.a.moves.outgoing(t.instanceUid)).toBe("complete");
    expect(await t.b.moves.incoming(t.instanceUid)).toBe("running");
    expect((await logOf(arrived)).records).toBeGreaterThanOrEqual((await logOf(plan)).records);
    await expectRuns(t.b, arrived);
    await expectNoTrace(t.b, arrived);
    expect(atSource.map(({ kind }) => kind)).toEqual(expect.arrayContaining(["disk-ready", "round", "stop", "held", "complete"]));
    const names = t.a.moves.marks(t.instanceUid).map(({ name }) => name);
    expect(names.slice(0, 4)).toEqual(["disks-started", "disks-ready", "memory-started", "pause-allowed"]);
    expect(names.slice(4).toSorted()).toEqual(["complete", "continued", "disks-finished", "held", "stopped"]);
    expect(t.b.moves.marks(t.instanceUid).map(({ name }) => name)).toEqual(["listening", "complete", "resumed"]);
    // the target's QEMU is an ordinary guest's
    await t.leave(t.a);
    await t.b.driver.stop(t.instanceUid, { mode: "clean", deadlineMs: 20_000 }, signal);
    expect(await t.b.driver.observe(t.instanceUid)).toMatchObject({ state: "exited", exit: { reason: "Stopped" } });
    expect(await logOf(arrived)).toMatchObject({ hole: false, torn: false });
  });

  test("its disks are locked at the target as they were at the source: a second writer is refused", async () => {
    const plan = await t.start({ moreDisks: [8] });
    for (const { path } of plan.disks) expect(await writes(path)).toMatch(REFUSED);
    const arrived = await t.move(t.a, t.b, plan);
    await expectRuns(t.b, arrived);
    for (const { path } of arrived.disks) expect(await writes(path)).toMatch(REFUSED);
    expect(await stderrOf(t.b, arrived)).not.toContain("Permission conflict");
    // the source holds none of its locks any more: what is refused above is refused for the guest's sake
    for (const { path } of plan.disks) expect(await writes(path)).toBe("");
  });

  test("agents that are replaced when all has arrived: its disks are locked all the same", async () => {
    const plan = await t.start({ kind: "IDLE" });
    const arrival = await t.receive(t.b, plan);
    const out = t.outgoing(arrival, plan);
    await t.a.moves.copyDisks(t.instanceUid, out, signal);
    await t.a.moves.copyMemory(t.instanceUid, out, signal);
    await t.a.moves.allowPause(t.instanceUid, 2_000);
    await t.a.moves.finish(t.instanceUid, signal);
    await t.replaceAgents();
    await t.b.moves.resume(t.instanceUid);
    for (const { path } of arrival.plan.disks) expect(await writes(path)).toMatch(REFUSED);
    expect(await stderrOf(t.b, arrival.plan)).not.toContain("Permission conflict");
    await t.b.moves.closeDisks(t.instanceUid);
  });

  test("nobody looks at a guest in its pause; once it is over it is looked at", async () => {
    const plan = await t.start({ kind: "IDLE" });
    const told = { a: 0, b: 0 };
    const arrival = await t.receive(t.b, plan);
    const out = t.outgoing(arrival, plan);
    await t.a.moves.copyDisks(t.instanceUid, out, signal);
    await t.a.moves.copyMemory(t.instanceUid, out, signal);
    t.a.driver.watch(t.instanceUid, () => (told.a += 1));
    t.b.driver.watch(t.instanceUid, () => (told.b += 1));
    await t.a.moves.allowPause(t.instanceUid, 2_000);
    await t.a.moves.finish(t.instanceUid, signal);
    await t.b.moves.resume(t.instanceUid);
    await pause(100);
    expect(told).toEqual({ a: 0, b: 0 });
    await t.a.moves.release(t.instanceUid);
    await t.b.moves.closeDisks(t.instanceUid);
    expect(told.b).toBeGreaterThan(0);
    await ask(t.b, t.instanceUid, "stop");
    await expect.poll(() => told.b, WAIT).toBeGreaterThan(1);
  });

  test("a guest that goes on at the source is looked at again", async () => {
    const plan = await t.start({ kind: "IDLE" });
    const out = t.outgoing(await t.receive(t.b, plan), plan);
    await t.a.moves.copyDisks(t.instanceUid, out, signal);
    await t.a.moves.copyMemory(t.instanceUid, out, signal);
    await t.a.moves.allowPause(t.instanceUid, 2_000);
    await t.a.moves.finish(t.instanceUid, signal);
    let told = 0;
    t.a.driver.watch(t.instanceUid, () => (told += 1));
    await t.a.moves.giveUp(t.instanceUid);
    await expect.poll(() => told, WAIT).toBeGreaterThan(0);
    // the target had closed what the source's disks were copied by: that harms nobody
    await expectNoTrace(t.a, plan);
    expect(await t.a.driver.observe(t.instanceUid)).toMatchObject({ state: "running", runState: "running" });
    await t.b.moves.abandon(t.instanceUid);
  });

  test("an idle guest runs on until its pause is allowed, for as long as that takes", async () => {
    const plan = await t.start({ kind: "IDLE", memoryMib: 64 });
    const out = t.outgoing(await t.receive(t.b, plan), plan);
    await t.a.moves.copyDisks(t.instanceUid, out, signal);
    const events = t.events(t.a);
    await t.a.moves.copyMemory(t.instanceUid, out, signal);
    await pause(3_000);
    expect(events.map(({ kind }) => kind)).not.toContain("stop");
    expect(await t.a.moves.outgoing(t.instanceUid)).toBe("copying");
    const { expectedPauseMs, memory } = await t.a.moves.counters(t.instanceUid);
    expect(expectedPauseMs).toBeLessThan(300);
    // QEMU's own loop would make more than ten thousand rounds a second of it
    await pause(1_000);
    expect((await t.a.moves.counters(t.instanceUid)).memory.rounds - memory.rounds).toBeLessThan(10_000);
    await t.a.moves.allowPause(t.instanceUid, 300);
    await t.a.moves.finish(t.instanceUid, signal);
    await t.b.moves.resume(t.instanceUid);
    expect(await t.b.driver.observe(t.instanceUid)).toMatchObject({ state: "running" });
  });

  test("a pause longer than allowed does not begin; throttled, the guest gets there", async () => {
    const plan = await t.start();
    await dirty(t.a, t.instanceUid, 400, 64);
    const out = t.outgoing(await t.receive(t.b, plan), plan, { maxBytesPerSecond: 12 * 2 ** 20, mayThrottle: true });
    await t.a.moves.copyDisks(t.instanceUid, out, signal);
    await t.a.moves.copyMemory(t.instanceUid, out, signal);
    await t.rounds(1);
    const before = await t.a.moves.counters(t.instanceUid);
    expect(before.expectedPauseMs).toBeGreaterThan(300);
    expect(before.memory.dirtyBytesPerSecond).toBeGreaterThan(2 * 2 ** 20);
    expect(before.memory.throttlePercent).toBeUndefined();
    await t.a.moves.throttle(t.instanceUid);
    await expect
      .poll(async () => (await t.a.moves.counters(t.instanceUid)).memory.throttlePercent, { timeout: 60_000, interval: 100 })
      .toBeGreaterThan(15);
    await t.a.moves.allowPause(t.instanceUid, 500);
    await t.a.moves.finish(t.instanceUid, signal);
    await t.b.moves.resume(t.instanceUid);
    expect(await t.b.driver.observe(t.instanceUid)).toMatchObject({ state: "running" });
  });

  test("a guest whose CPUs may not be slowed is never, however much it writes", async () => {
    const plan = await t.start();
    await dirty(t.a, t.instanceUid, 400, 64);
    const out = t.outgoing(await t.receive(t.b, plan), plan, { maxBytesPerSecond: 64 * 2 ** 20 });
    await t.a.moves.copyDisks(t.instanceUid, out, signal);
    await t.a.moves.copyMemory(t.instanceUid, out, signal);
    await t.rounds(4);
    // counters leave out the one percent of an idle throttle
    const migration = await queryMigrate(await monitorOf(t.a.moves.parts, t.instanceUid));
    expect(migration["cpu-throttle-percentage"]).toBeUndefined();
    await t.a.moves.giveUp(t.instanceUid);
    await t.b.moves.abandon(t.instanceUid);
  });

  test("a limit holds for disks and memory, and can be changed on the way", async () => {
    const plan = await t.start({ moreDisks: [64] });
    await writeFile(plan.disks[1]?.path ?? "", Buffer.alloc(64 * 2 ** 20, "x"), { flag: "r+" });
    const out = t.outgoing(await t.receive(t.b, plan), plan, { maxBytesPerSecond: 32 * 2 ** 20 });
    const from = performance.now();
    await t.a.moves.copyDisks(t.instanceUid, out, signal);
    // the second disk has 64 MiB and half of the limit
    expect(performance.now() - from).toBeGreaterThan(3_000);
    await t.a.moves.copyMemory(t.instanceUid, out, signal);
    await pause(1_500);
    const { memory } = await t.a.moves.counters(t.instanceUid);
    expect(memory.bytesPerSecond).toBeGreaterThan(16 * 2 ** 20);
    expect(memory.bytesPerSecond).toBeLessThan(34 * 2 ** 20);
    expect(memory.rounds).toBe(1);
    // at this rate its first pass would not end within the time that is waited for it
    await t.a.moves.limit(t.instanceUid, 2 ** 20);
    await t.a.moves.limit(t.instanceUid, undefined);
    await expect.poll(async () => (await t.a.moves.counters(t.instanceUid)).memory.rounds, WAIT).toBeGreaterThan(1);
    await t.a.moves.allowPause(t.instanceUid, 500);
    await t.a.moves.finish(t.instanceUid, signal);
    await t.b.moves.resume(t.instanceUid);
  });

  test("a limited move is allowed its pause: the switchover is not slowed", async () => {
    const plan = await t.start();
    await dirty(t.a, t.instanceUid, 10, 64);
    const out = t.outgoing(await t.receive(t.b, plan), plan, { maxBytesPerSecond: 24 * 2 ** 20 });
    await t.a.moves.copyDisks(t.instanceUid, out, signal);
    await t.a.moves.copyMemory(t.instanceUid, out, signal);
    await t.a.moves.allowPause(t.instanceUid, 1_000);
    await t.a.moves.finish(t.instanceUid, signal);
    await t.b.moves.resume(t.instanceUid);
    const at = (name: string): number => t.a.moves.marks(t.instanceUid).find((mark) => mark.name === name)?.at ?? 0;
    expect(at("complete") - at("stopped")).toBeLessThan(1_000);
  });

  test("several disks, most of them empty: zeros take no room at the target", async () => {
    const plan = await t.start({ moreDisks: [200, 10] });
    const arrived = await t.move(t.a, t.b, plan);
    await expectRuns(t.b, arrived);
    const empty = await stat(arrived.disks[1]?.path ?? "");
    expect(empty.size).toBe(200 * 2 ** 20);
    expect(empty.blocks * 512).toBeLessThan(2 ** 20);
  });

  test("ten moves to and fro leave nothing behind", async () => {
    let plan = await t.start();
    let counted: number | undefined;
    let [here, there] = [t.a, t.b];
    for (let round = 0; round < 10; round++) {
      plan = await t.move(here, there, plan, round % 2 === 0 ? { secret: newSecret() } : {});
      await t.leave(here);
      [here, there] = [there, here];
      await expectNoTrace(here, plan);
      const open = await countOpen(here, t.instanceUid);
      counted ??= open;
      expect(open).toBeLessThanOrEqual(counted);
    }
    await expectRuns(here, plan);
  }, 180_000);

  test.each([
    ["the disks'", [-2, -1]],
    ["the memory's", [0, -1]],
  ])("a port that is taken is passed over: %s", async (_, leftFree) => {
    const plan = await t.start({ kind: "IDLE" });
    const inOrder = [...portsFrom(PORTS, t.instanceUid)];
    const free = leftFree.map((index) => inOrder.at(index));
    const servers = [];
    for (const port of inOrder.filter((one) => !free.includes(one))) {
      const server = createServer().listen(port, ADDRESS);
      await once(server, "listening");
      servers.push(server);
    }
    try {
      const { offer } = await t.receive(t.b, plan);
      expect([offer.diskPort, offer.ramPort]).toEqual(free);
      await t.b.moves.abandon(t.instanceUid);
    } finally {
      for (const server of servers) server.close();
    }
  });

  test("post-copy: a guest that writes faster than the link carries goes on at the target, and its memory follows", async () => {
    const plan = await t.start();
    await dirty(t.a, t.instanceUid, 400, 96);
    const arrival = await t.receive(t.b, plan);
    expect(arrival.offer.postCopy).toBe(existsSync("/dev/userfaultfd"));
    if (!arrival.offer.postCopy) {
      await t.b.moves.abandon(t.instanceUid);
      return;
    }
    const out = t.outgoing(arrival, plan, { maxBytesPerSecond: 24 * 2 ** 20 });
    await t.a.moves.copyDisks(t.instanceUid, out, signal);
    await t.a.moves.copyMemory(t.instanceUid, out, signal);
    await t.rounds(1);
    const ends = t.events(t.a);
    await t.a.moves.allowPause(t.instanceUid, 1);
    await t.a.moves.postCopy(t.instanceUid);
    await t.a.moves.finish(t.instanceUid, signal);
    await t.b.moves.resume(t.instanceUid);
    await expectRuns(t.b, arrival.plan);
    await expect.poll(() => ends.some(({ kind }) => kind === "complete"), WAIT).toBe(true);
    expect(await t.a.moves.outgoing(t.instanceUid)).toBe("complete");
    await t.a.moves.release(t.instanceUid);
    await t.b.moves.closeDisks(t.instanceUid);
    await t.leave(t.a);
    await expectRuns(t.b, arrival.plan);
    await expectNoTrace(t.b, arrival.plan);
  });

  test("what one move out of a node came to is nothing to the next, though nobody let go of it", async () => {
    const plan = await t.start({ kind: "IDLE" });
    const there = await t.receive(t.b, plan);
    const out = t.outgoing(there, plan);
    await t.a.moves.copyDisks(t.instanceUid, out, signal);
    await t.a.moves.copyMemory(t.instanceUid, out, signal);
    await t.a.moves.allowPause(t.instanceUid, 2_000);
    await t.a.moves.finish(t.instanceUid, signal);
    await t.b.moves.resume(t.instanceUid);
    await t.leave(t.a);
    await t.b.moves.closeDisks(t.instanceUid);
    const back = await t.move(t.b, t.a, there.plan);
    await t.leave(t.b);
    const again = await t.receive(t.b, back);
    const more = t.outgoing(again, back);
    await t.a.moves.copyDisks(t.instanceUid, more, signal);
    await t.a.moves.copyMemory(t.instanceUid, more, signal);
    // The pause of the one before was allowed, and its rates with it.
    expect(t.a.moves.isPausing(t.instanceUid)).toBe(false);
    await t.a.moves.allowPause(t.instanceUid, 2_000);
    await t.a.moves.finish(t.instanceUid, signal);
    await t.b.moves.resume(t.instanceUid);
    expect(await t.b.driver.observe(t.instanceUid)).toMatchObject({ state: "running", claimUid: again.plan.claimUid });
  });

  test("what stands in the way of a move is asked of QEMU, which names it", async () => {
    const { disks } = await t.start({ kind: "IDLE" });
    expect((await t.a.driver.observe(t.instanceUid)).blockers).toEqual([]);
    // No Instance can have one of these; a device that QEMU cannot move would say it in the same way.
    const path = disks[0]?.path ?? "";
    const odd = join(dirname(path), "odd.vdi");
    const { uid, gid } = await stat(path);
    await execa("qemu-img", ["create", "-q", "-f", "vdi", odd, "1M"]);
    await chown(odd, uid, gid);
    const file = { driver: "file", filename: `/disks/${disks[0]?.pool ?? ""}/odd.vdi` };
    await ask(t.a, t.instanceUid, "blockdev-add", { driver: "vdi", "node-name": "odd", file });
    const [why = ""] = (await t.a.driver.observe(t.instanceUid)).blockers ?? [];
    expect(why).toMatch(/vdi.*'odd'.*does not support live migration/);
    await ask(t.a, t.instanceUid, "blockdev-del", { "node-name": "odd" });
    expect((await t.a.driver.observe(t.instanceUid)).blockers).toEqual([]);
  });
});
