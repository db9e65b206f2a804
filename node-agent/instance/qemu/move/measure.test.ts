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
    mbps: 0,
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
    meter.round(9_900);
    const seen = meter.look(10_000, memory(1000, 20, 2, { "dirty-pages-rate": 12_800 }), []);
    expect(seen.memory.dirtyBytesPerSecond).toBe(50 * MIB);
    expect(seen.expectedPauseMs).toBe(280);
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

  test("another migration is measured anew", () => {
    const meter = new Meter();
    meter.look(0, memory(0, 1024, 1), []);
    meter.look(10_000, memory(1000, 20, 2), []);
    expect(meter.look(20_000, memory(1, 1000, 1), []).memory.bytesPerSecond).toBe(0);
  });
});
