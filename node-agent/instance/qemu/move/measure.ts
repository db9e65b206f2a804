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

/** What was counted at one moment. */
interface Counts {
  /** Any clock in ms that does not jump. */
  at: number;
  /** Sent so far. */
  bytes: number;
  /** Waits to be sent. */
  left: number;
}

interface MemoryCounts extends Counts {
  rounds: number;
  /** Pages sent as they are, and those that are zero: of them next to nothing is sent. */
  normal: number;
  zero: number;
  held: boolean;
}

/**
 * A speed, measured from one look to a later one. Whatever passed is a lower bound of it; it is the speed itself only if there was
 * something to send all the time and nothing else to do (`telling`).
 */
class Speed<T extends Counts> {
  readonly #telling: (from: T, to: T) => boolean;
  #from: T | undefined;
  #measured: number | undefined;
  #atLeast = 0;
  /** Since the last look there may have been nothing to do. */
  #interrupted = false;

  constructor(telling: (from: T, to: T) => boolean) {
    this.#telling = telling;
  }

  look(now: T): void {
    const from = (this.#from ??= now);
    const ms = now.at - from.at;
    const bytes = now.bytes - from.bytes;
    const interrupted = this.#interrupted;
    this.#interrupted = false;
    // little to send says nothing of the link; and a little that was sent may lie in a buffer before it yet
    if (from.left < TELLING_BYTES || interrupted) this.#from = now;
    if (from.left < TELLING_BYTES || ms < TELLING_MS || bytes < TELLING_BYTES) return;
    const rate = (bytes / ms) * 1000;
    if (!interrupted && this.#telling(from, now)) {
      this.#measured = rate;
      this.#atLeast = 0; // the link may have become slower
    } else this.#atLeast = Math.max(this.#atLeast, rate);
    this.#from = now;
  }

  /** Between the last look and the next there was a moment in which perhaps nothing could be sent. */
  interrupt(): void {
    this.#interrupted = true;
  }

  /** What comes is not measured together with what was. */
  restart(): void {
    this.#from = undefined;
  }

  /** Bytes per second; 0: nothing is known. */
  get seen(): number {
    return this.#measured ?? this.#atLeast;
  }

  /** The same to reckon with: `otherwise`, or the bound if that is more, where only bounds are known. */
  estimate(otherwise: number): number {
    return Math.max(this.#measured ?? otherwise, this.#atLeast);
  }
}

/**
 * Within one pass QEMU always has something to send. From one to the next it may have sent nothing for up to a second: before a pass it
 * waits for every CPU, under TCG also for one that is throttled, which then sleeps most of its time.
 */
const tellsOfMemory = (from: MemoryCounts, to: MemoryCounts): boolean =>
  to.rounds === from.rounds && to.zero - from.zero <= to.normal - from.normal && !from.held && !to.held;

const tellsOfDisks = (_: Counts, to: Counts): boolean => to.left >= TELLING_BYTES;

/**
 * What a guest writes, by what a pass has found when it begins: QEMU's own measure takes a second, in which a guest that has just begun to
 * write is an idle one.
 */
class Findings {
  #roundAt: number | undefined;
  /** How long the guest had to write what this pass finds; ms. */
  #ms = 0;
  #now: number | undefined;
  #before = 0;

  round(at: number): void {
    this.#before = this.#now ?? 0;
    this.#now = undefined;
    this.#ms = this.#roundAt === undefined ? 0 : at - this.#roundAt;
    this.#roundAt = at;
  }

  /** The first look in a pass counts; of an idle guest's short passes none does. */
  look(left: number): void {
    this.#now ??= this.#ms < TELLING_MS ? 0 : (left / this.#ms) * 1000;
  }

  /** Since the pass began, ms. */
  since(at: number): number {
    return this.#roundAt === undefined ? 0 : Math.max(0, at - this.#roundAt);
  }

  /** Bytes per second. A look that came late in its pass has found too little, so the pass before it counts as well. */
  get rate(): number {
    return Math.max(this.#now ?? 0, this.#before);
  }
}

/** Speeds, measured from one look to the next. `at` is any clock in ms that does not jump. */
export class Meter {
  #begunAt: number | undefined;
  #sent = 0;
  #memory = new Speed(tellsOfMemory);
  #disks = new Speed(tellsOfDisks);
  #findings = new Findings();
  #held = false;
  #dirtyRate: number | undefined;
  #writingMeasured = false;

  /** Takes a look; gives what it makes of it and all earlier ones. */
  look(at: number, migration: Migration, mirrors: readonly MirrorJob[]): MoveCounters {
    const ram = migration.ram;
    const disk = sum(mirrors);
    const bytes = ram?.transferred ?? 0;
    const left = ram?.remaining ?? 0;
    const rounds = ram?.["dirty-sync-count"] ?? 0;
    if (bytes < this.#sent) this.reset(); // another migration
    this.#sent = bytes;
    this.#begunAt ??= at;
    this.#memory.look({ at, bytes, left, rounds, normal: ram?.normal ?? 0, zero: ram?.duplicate ?? 0, held: this.#held });
    this.#disks.look({ at, bytes: disk.doneBytes, left: disk.totalBytes - disk.doneBytes });
    this.#findings.look(left);
    this.#measureWriting(at - this.#begunAt, ram);
    const counters: MoveCounters = {
      disk,
      memory: {
        doneBytes: Math.max(0, (ram?.total ?? 0) - left),
        totalBytes: ram?.total ?? 0,
        remainingBytes: left,
        bytesPerSecond: Math.round(this.#memory.seen),
        dirtyBytesPerSecond: Math.round(this.#dirtyRate ?? 0),
        rounds,
        ...throttled(migration["cpu-throttle-percentage"]),
      },
      // until the first pass is over nothing is known of what the guest writes
      expectedPauseMs: rounds < 2 ? undefined : this.#expectedPause(at, left, disk.totalBytes - disk.doneBytes),
    };
    return migration.downtime === undefined ? counters : { ...counters, downtimeMs: migration.downtime };
  }

  /** A pass over memory has begun: QEMU counts it before it waits for the CPUs, and tells of it after. */
  round(at: number): void {
    this.#findings.round(at);
    this.#memory.interrupt();
  }

  /** Rates have been set anew; `held`: so low that what is sent says nothing of the link. */
  hold(held: boolean): void {
    this.#held = held;
    this.#memory.restart();
    this.#disks.restart();
  }

  reset(): void {
    this.#memory = new Speed(tellsOfMemory);
    this.#disks.restart();
    this.#sent = 0;
    this.#findings = new Findings();
    this.#begunAt = this.#dirtyRate = undefined;
    this.#writingMeasured = false;
  }

  /** QEMU's own measure needs a second; before that it is what a pass found over the time since the one before. */
  #measureWriting(sinceMs: number, ram: Migration["ram"]): void {
    const measured = (ram?.["dirty-pages-rate"] ?? 0) * (ram?.["page-size"] ?? 0);
    // once it has measured, a guest that writes nothing more is told, too
    this.#writingMeasured ||= measured > 0;
    if (this.#writingMeasured) this.#dirtyRate = measured;
    else if (ram?.["dirty-sync-count"] === 2 && sinceMs > TELLING_MS) this.#dirtyRate ??= (ram.remaining / sinceMs) * 1000;
  }

  #expectedPause(at: number, left: number, diskLeft: number): number {
    const rate = this.#memory.estimate(CAUTIOUS_RATE);
    const unseen = (Math.max(this.#dirtyRate ?? 0, this.#findings.rate) * this.#findings.since(at)) / 1000;
    const memory = ((left + unseen) / rate) * 1000;
    const disk = diskLeft === 0 ? 0 : (diskLeft / this.#disks.estimate(rate)) * 1000;
    return Math.ceil(memory + disk + OVERHEAD_MS);
  }
}

/** The one percent that an idle throttle may take is none. */
const throttled = (percent: number | undefined): { throttlePercent?: number } =>
  percent === undefined || percent <= 1 ? {} : { throttlePercent: percent };

function sum(mirrors: readonly MirrorJob[]): { doneBytes: number; totalBytes: number } {
  let doneBytes = 0;
  let totalBytes = 0;
  for (const one of mirrors) {
    doneBytes += one.doneBytes;
    totalBytes += one.totalBytes;
  }
  return { doneBytes, totalBytes };
}
