import { describe, expect, test } from "vitest";
import type { Migration, MirrorJob } from "./commands.ts";
import { Meter } from "./measure.ts";

const MIB = 2 ** 20;

const memory = (transferred: number, remaining: number, rounds: number, more: object = {}): Migration => ({
  status: "active",
  ram: {
    transferred: transferred * MIB,
    remaining: remaining * MIB,
    total: 1024 * MIB,
    normal: (transferred * MIB) / 4096,
    duplicate: 0,
    "dirty-sync-count": rounds,
    "page-size": 4096,
    ...more,
  },
});

const mirror = (done: number, total: number): MirrorJob => ({
  disk: "root",
  job: "move-root",
  doneBytes: done * MIB,
  totalBytes: total * MIB,
  ready: true,
  pending: false,
  concluded: false,
});

describe("the pause that is expected", () => {
  test("unknown until the first pass is over", () => {
    const meter = new Meter();
    meter.look(0, memory(0, 1024, 1), []);
    expect(meter.look(1000, memory(100, 924, 1), []).expectedPauseMs).toBeUndefined();
    expect(meter.look(2000, memory(200, 824, 1), []).memory).toMatchObject({
      bytesPerSecond: 100 * MIB,
      doneBytes: 200 * MIB,
      rounds: 1,
    });
  });

  test("what is left at the measured speed, and what a switchover takes besides", () => {
    const meter = new Meter();
    meter.look(0, memory(0, 1024, 1), []);
    expect(meter.look(10_000, memory(1000, 20, 2), []).expectedPauseMs).toBe(230);
  });

  test("what the guest writes after the round began counts too", () => {
    const meter = new Meter();
    meter.look(0, memory(0, 1024, 1), []);
    meter.look(9_800, memory(980, 44, 1), []);
    meter.round(9_900);
    const seen = meter.look(10_000, memory(1000, 20, 2, { "dirty-pages-rate": 12_800 }), []);
    expect(seen.memory.dirtyBytesPerSecond).toBe(50 * MIB);
    expect(seen.expectedPauseMs).toBe(280);
  });

  test("a guest that has just begun to write is no idle one, though QEMU has not measured it yet", () => {
    const meter = new Meter();
    const idle = { "dirty-pages-rate": 10 };
    meter.look(0, memory(0, 1024, 1), []);
    meter.look(9_000, memory(900, 124, 1), []);
    for (let at = 9_001; at < 9_020; at++) {
      meter.round(at);
      meter.look(at, memory(900, 0.1, at, idle), []);
    }
    meter.round(9_320);
    meter.look(9_320, memory(900, 30, 9_320, idle), []);
    // it wrote 30 MiB in 0.3 s, and again while they are sent
    expect(meter.look(9_600, memory(928, 2, 9_320, idle), []).expectedPauseMs).toBeGreaterThan(250);
    meter.round(9_620);
    expect(meter.look(9_820, memory(950, 2, 9_620, idle), []).expectedPauseMs).toBeGreaterThan(200);
  });

  test("disks that are behind count at their own speed", () => {
    const meter = new Meter();
    meter.look(0, memory(0, 1024, 1), [mirror(0, 500)]);
    expect(meter.look(10_000, memory(1000, 0, 2), [mirror(490, 500)]).expectedPauseMs).toBe(30 + Math.ceil(10_000 / 49));
  });

  test("a link with nothing to do is not taken for a slow one", () => {
    const meter = new Meter();
    meter.look(0, memory(0, 1024, 1), []);
    meter.look(10_000, memory(1000, 1, 2), []);
    // 6 MiB of empty rounds within a minute
    const seen = meter.look(70_000, memory(1006, 1, 90_000), []);
    expect(seen.memory.bytesPerSecond).toBe(100 * MIB);
    expect(seen.expectedPauseMs).toBe(40);
  });

  test("a guest so empty that copying it told nothing: a cautious guess", () => {
    const meter = new Meter();
    meter.look(0, memory(0, 64, 1), []);
    expect(meter.look(5, memory(1, 0, 2), []).expectedPauseMs).toBe(30);
    expect(meter.look(6, memory(1, 32, 3), []).expectedPauseMs).toBe(1030);
  });

  test("a first pass over empty memory says nothing of the link, and holds nobody up for ever", () => {
    const meter = new Meter();
    meter.look(0, memory(0, 256, 1), []);
    // 5 MiB in 0.9 s: what took the time was to find 60,000 pages empty
    expect(meter.look(900, memory(5, 2, 2, { duplicate: 60_000 }), []).expectedPauseMs).toBe(30 + Math.ceil(2_000 / 32));
    // an idle guest: the same little is left at each look, for it was only just written
    for (let at = 920, sent = 5.5, rounds = 9; at < 3_000; at += 20, sent += 0.5, rounds += 7) {
      const seen = meter.look(at, memory(sent, 2, rounds, { duplicate: 60_000 }), []);
      expect(seen.expectedPauseMs).toBeLessThan(100);
    }
  });

  test("what a buffer takes within a moment is not taken for the speed of the link, nor a burst for that of a limited one", () => {
    const meter = new Meter();
    meter.look(0, memory(0, 1024, 1), []);
    meter.look(9_900, memory(99, 925, 1), []);
    meter.round(9_990);
    meter.look(10_000, memory(100, 3, 3), []);
    // 3 MiB within 20 ms, where there was little to send
    meter.look(10_020, memory(103, 20, 4), []);
    const seen = meter.look(10_040, memory(105, 18, 4), []);
    expect(seen.memory.bytesPerSecond).toBe(10 * MIB);
    expect(seen.expectedPauseMs).toBe(30 + 1_800);
  });

  test("a link that has become slower is seen", () => {
    const meter = new Meter();
    meter.look(0, memory(0, 1024, 1), []);
    meter.look(1_000, memory(100, 924, 1), []);
    meter.look(1_020, memory(104, 20, 1), []);
    meter.look(2_020, memory(114, 10, 1), []);
    expect(meter.look(3_020, memory(124, 20, 2), []).expectedPauseMs).toBe(30 + 2_000);
  });

  test("a pass that waits for a CPU which sleeps, throttled, is not taken for a slow link", () => {
    const meter = new Meter();
    meter.look(0, memory(0, 256, 1), []);
    meter.look(10_000, memory(187, 10, 1), []);
    // As seen of a guest that is slowed by 99 %: each second a pass of 5 MiB, which QEMU counts, then waits for the CPU, then sends in a quarter.
    for (let pass = 0; pass < 6; pass++) {
      const [at, sent, rounds] = [11_000 + 1_000 * pass, 197 + 5 * pass, 2 + pass];
      meter.look(at + 200, memory(sent, 5, rounds), []);
      meter.look(at + 650, memory(sent, 5, rounds), []);
      meter.round(at + 700);
      meter.look(at + 720, memory(sent, 5, rounds), []);
      const seen = meter.look(at + 980, memory(sent + 4.9, 0.1, rounds), []);
      expect(seen.memory.bytesPerSecond).toBeGreaterThan(18 * MIB);
      expect(meter.look(at + 1_000, memory(sent + 5, 5, rounds + 1), []).expectedPauseMs).toBeLessThan(400);
    }
  });

  test("time in which nothing was to be sent does not count: neither idle passes, nor a rate that was held down", () => {
    const meter = new Meter();
    meter.look(0, memory(0, 1024, 1), []);
    meter.look(1_000, memory(100, 924, 1), []);
    // passes that ended early are in between
    expect(meter.look(9_000, memory(110, 8, 90), []).memory.bytesPerSecond).toBe(100 * MIB);
    meter.hold(true);
    meter.look(9_100, memory(111, 8, 91), []);
    expect(meter.look(11_000, memory(116, 8, 91), []).memory.bytesPerSecond).toBe(100 * MIB);
    meter.hold(false);
    meter.look(11_100, memory(117, 18, 92), []);
    expect(meter.look(11_600, memory(127, 8, 92), []).memory.bytesPerSecond).toBe(20 * MIB);
  });

  test("a mirror that only follows what the guest writes is not taken for a slow one", () => {
    const meter = new Meter();
    meter.look(0, memory(0, 1024, 1), [mirror(0, 500)]);
    meter.look(10_000, memory(1000, 0, 2), [mirror(490, 500)]);
    // 6 MiB in 30 s, each written when the one before was copied
    for (let at = 15_000; at <= 40_000; at += 5_000) {
      const seen = meter.look(at, memory(1000, 0, 3), [mirror(490 + at / 5_000, 491 + at / 5_000)]);
      expect(seen.expectedPauseMs).toBe(30 + Math.ceil(1_000 / 49));
    }
  });

  test("a guest that has stopped writing is told so", () => {
    const meter = new Meter();
    meter.look(0, memory(0, 1024, 1), []);
    meter.look(10_000, memory(1000, 20, 2, { "dirty-pages-rate": 12_800 }), []);
    meter.round(11_000);
    const seen = meter.look(12_000, memory(1020, 0, 3, { "dirty-pages-rate": 0 }), []);
    expect(seen.memory.dirtyBytesPerSecond).toBe(0);
    expect(seen.expectedPauseMs).toBe(30);
  });

  test("another migration is measured anew", () => {
    const meter = new Meter();
    meter.look(0, memory(0, 1024, 1), []);
    meter.look(10_000, memory(1000, 20, 2), []);
    expect(meter.look(20_000, memory(1, 1000, 1), []).memory.bytesPerSecond).toBe(0);
  });
});
