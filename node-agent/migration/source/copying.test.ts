import { beforeEach, expect, test } from "vitest";
import type { Migration, MigrationSource } from "../../../crds/migration.ts";
import { FakeClock } from "../../../kube/clock.ts";
import type { MoveCounters } from "../../instance/move.ts";
import type { MoveNote } from "../notes.ts";
import { Copying } from "./copying.ts";

const MIB = 1024 ** 2;
const OFFER = { type: "offer", address: "10.0.0.2", ramPort: 1, diskPort: 2, streams: 0, postCopy: true } as const;

/** After so many passes; `over`: of the memory. */
const counters = (rounds: number, expectedPauseMs: number, over: Partial<MoveCounters["memory"]> = {}): MoveCounters => ({
  disk: { doneBytes: 0, totalBytes: 0 },
  memory: {
    doneBytes: 0,
    totalBytes: 1024 * MIB,
    remainingBytes: 48 * MIB,
    bytesPerSecond: 24 * MIB,
    dirtyBytesPerSecond: 40 * MIB,
    rounds,
    ...over,
  },
  expectedPauseMs,
});

let onStall: "Throttle" | "PostCopy" | "Abort";
/** What QEMU tells, one after the other; the last one again and again. */
let told: MoveCounters[];
let asked: string[];
let said: Partial<MigrationSource>[];
let clock: FakeClock;
let copying: Copying;

beforeEach(() => {
  [onStall, asked, said] = ["Throttle", [], []];
  clock = new FakeClock();
  const note = { attempt: 1, instance: { uid: "u", name: "vm" }, migration: { name: "m" }, since: clock.now() } as MoveNote;
  copying = new Copying({
    moves: {
      counters: async () => (told.length > 1 ? told.shift() : told[0]),
      throttle: async () => void asked.push("throttle"),
    } as never,
    checkpoint: async () => undefined,
    clock,
    log: { warn: () => undefined, debug: () => undefined } as never,
    note: () => note,
    migration: () => ({ status: { policy: { maxPauseMs: 500, onStall, timeoutMs: 600_000, tls: true } } }) as Migration,
    writeNote: async () => undefined,
    caller: () => ({ open: true }) as never,
    say: (words) => void said.push(words),
    changed: () => void asked.push(copying.failed?.reason ?? (copying.postCopy ? "post-copy" : "switch")),
    switching: () => copying.fits,
    pausing: () => false,
  });
});

/** The memory is on its way, and QEMU is asked until nothing new comes. */
const copies = async (settled: boolean, ...all: MoveCounters[]): Promise<void> => {
  told = [...all];
  copying.offered({ ...OFFER, settled });
  copying.go("copying", new AbortController().signal);
  for (let looks = 0; looks <= all.length; looks++) await clock.advance(1_000);
};

const STUCK = [2, 3, 4, 5].map((rounds) => counters(rounds, 2_000));

test("a guest that is slowed, and fits by the same look, is said to be slowed", async () => {
  await copies(true, ...STUCK, counters(6, 400, { throttlePercent: 96 }));
  expect(asked).toEqual(["throttle", "switch"]);
  expect(said.at(-1)?.memoryCounters).toMatchObject({ rounds: 6, throttlePercent: 96 });
  expect(said.at(-1)).toMatchObject({ state: "CopyingMemory", stalled: undefined });
});

test("once it fits, nothing more is said of its copy", async () => {
  await copies(true, counters(2, 400), counters(3, 300));
  expect(asked).toEqual(["switch"]);
  expect(said.at(-1)?.memoryCounters?.rounds).toBe(2);
});

test("it may not be stopped before the target is ready for it", async () => {
  await copies(false, counters(2, 400));
  expect(asked).toEqual([]);
  copying.offered({ ...OFFER, settled: true });
  await clock.advance(1_000);
  expect(asked).toEqual(["switch"]);
});

test.each([
  ["PostCopy", "post-copy", true],
  ["Abort", "NotConverging", false],
] as const)("a stall under %s", async (under, want, fits) => {
  onStall = under;
  await copies(true, ...STUCK);
  expect([asked[0], copying.fits]).toEqual([want, fits]);
});

test("one that began to write after it had fitted goes on by post-copy", async () => {
  onStall = "PostCopy";
  await copies(true, counters(2, 400), ...STUCK);
  expect(asked).toEqual(["switch", "post-copy"]);
});
