/** What QEMU's counters say about the time a guest would stand still. Pure. */
import type { MoveCounters } from "../../move.ts";
import type { Migration, MirrorJob } from "./commands.ts";

/** Besides what is copied: devices' state, the end of the mirrors, messages; ms. */
const OVERHEAD_MS = 30;

/** Less than this tells nothing about the speed of a link. */
const TELLING_BYTES = 4 * 2 ** 20;
const TELLING_MS = 20;

/** For a guest whose memory was so empty that copying it told nothing of the link; bytes per second. */
const CAUTIOUS_RATE = 32 * 2 ** 20;

interface Sample {
  at: number;
  memoryBytes: number;
  diskBytes: number;
  rounds: number;
  remainingBytes: number;
}

/** Speeds, measured from one look to the next. `at` is any clock in ms that does not jump. */
export class Meter {
  #first: Sample | undefined;
  #base: Sample | undefined;
  #diskBase: Sample | undefined;
  #round: { at: number; number: number } | undefined;
  #memoryRate: number | undefined;
  #diskRate: number | undefined;
  #dirtyRate: number | undefined;

  /** Takes a look; gives what it makes of it and all earlier ones. */
  look(at: number, migration: Migration, mirrors: readonly MirrorJob[]): MoveCounters {
    const ram = migration.ram;
    const disk = sum(mirrors);
    const sample: Sample = {
      at,
      memoryBytes: ram?.transferred ?? 0,
      diskBytes: disk.doneBytes,
      rounds: ram?.["dirty-sync-count"] ?? 0,
      remainingBytes: ram?.remaining ?? 0,
    };
    if (this.#base && sample.memoryBytes < this.#base.memoryBytes) this.reset(); // another migration
    this.#first ??= sample;
    this.#base ??= sample;
    this.#diskBase ??= sample;
    if (this.#base.remainingBytes < TELLING_BYTES) {
      this.#base = sample; // there was too little to send: that says nothing of the link
    } else if (tells(sample.memoryBytes - this.#base.memoryBytes, at - this.#base.at)) {
      this.#memoryRate = ((sample.memoryBytes - this.#base.memoryBytes) / (at - this.#base.at)) * 1000;
      this.#base = sample;
    }
    if (tells(sample.diskBytes - this.#diskBase.diskBytes, at - this.#diskBase.at)) {
      this.#diskRate = ((sample.diskBytes - this.#diskBase.diskBytes) / (at - this.#diskBase.at)) * 1000;
      this.#diskBase = sample;
    }
    this.#measureWriting(sample, ram);
    const remaining = sample.remainingBytes;
    const counters: MoveCounters = {
      disk,
      memory: {
        doneBytes: Math.max(0, (ram?.total ?? 0) - remaining),
        totalBytes: ram?.total ?? 0,
        remainingBytes: remaining,
        bytesPerSecond: Math.round(this.#memoryRate ?? 0),
        dirtyBytesPerSecond: Math.round(this.#dirtyRate ?? 0),
        rounds: sample.rounds,
        ...throttled(migration["cpu-throttle-percentage"]),
      },
      expectedPauseMs: this.#expectedPause(sample, disk.totalBytes - disk.doneBytes),
    };
    return migration.downtime === undefined ? counters : { ...counters, downtimeMs: migration.downtime };
  }

  /** A pass over memory has begun. */
  round(at: number): void {
    this.#round = { at, number: (this.#round?.number ?? 0) + 1 };
  }

  reset(): void {
    this.#first = this.#base = this.#diskBase = undefined;
    this.#round = undefined;
    this.#memoryRate = this.#dirtyRate = undefined;
  }

  /** QEMU's own measure needs a second; before that it is what a pass found over the time since the one before. */
  #measureWriting(sample: Sample, ram: Migration["ram"]): void {
    const measured = (ram?.["dirty-pages-rate"] ?? 0) * (ram?.["page-size"] ?? 0);
    if (measured > 0) this.#dirtyRate = measured;
    else if (sample.rounds === 2 && this.#first && sample.at - this.#first.at > TELLING_MS) {
      this.#dirtyRate ??= (sample.remainingBytes / (sample.at - this.#first.at)) * 1000;
    }
  }

  #expectedPause(sample: Sample, diskRemaining: number): number | undefined {
    // until the first pass is over nothing is known of what the guest writes
    if (sample.rounds < 2) return undefined;
    const rate = this.#memoryRate ?? CAUTIOUS_RATE;
    const since = this.#round ? Math.max(0, sample.at - this.#round.at) : 0;
    const unseen = ((this.#dirtyRate ?? 0) * since) / 1000;
    const memory = ((sample.remainingBytes + unseen) / rate) * 1000;
    const disk = diskRemaining === 0 ? 0 : (diskRemaining / (this.#diskRate ?? rate)) * 1000;
    return Math.ceil(memory + disk + OVERHEAD_MS);
  }
}

/** The one percent that an idle throttle may take is none. */
const throttled = (percent: number | undefined): { throttlePercent?: number } =>
  percent === undefined || percent <= 1 ? {} : { throttlePercent: percent };

const tells = (bytes: number, ms: number): boolean => bytes >= TELLING_BYTES && ms >= TELLING_MS;

function sum(mirrors: readonly MirrorJob[]): { doneBytes: number; totalBytes: number } {
  let doneBytes = 0;
  let totalBytes = 0;
  for (const one of mirrors) {
    doneBytes += one.doneBytes;
    totalBytes += one.totalBytes;
  }
  return { doneBytes, totalBytes };
}
