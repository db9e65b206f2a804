/** What one agent says for both sides of a move that stays on its node. */
import type { Migration, MigrationSource, MigrationTarget } from "../../../crds/migration.ts";
import { errorText } from "../../errors.ts";
import type { PoolMoveDriver } from "../../instance/pool-move.ts";
import type { MoveNote } from "../notes.ts";
import type { SideParts } from "../parts.ts";
import { progressWords } from "../source/words.ts";
import { rateText } from "../words.ts";

const REPORT_MS = 1_000;
const NO_MEMORY = { doneBytes: 0, totalBytes: 0, remainingBytes: 0, dirtyBytesPerSecond: 0, rounds: 0 };

export interface LocalWordsParts extends Pick<SideParts, "reporter" | "clock" | "log"> {
  disks: Pick<PoolMoveDriver, "counters">;
  note: () => MoveNote;
  migration: () => Migration;
}

interface Sample {
  at: number;
  bytes: number;
}

export class LocalWords {
  readonly #parts: LocalWordsParts;
  #timer: object | undefined;
  #counting = false;

  constructor(parts: LocalWordsParts) {
    this.#parts = parts;
  }

  source(words: Partial<MigrationSource> & Pick<MigrationSource, "state">): void {
    const { reporter, note, migration } = this.#parts;
    const { attempt, migration: ref } = note();
    const last = reporter.last(ref, "source");
    const said = last?.role === "source" ? last.words : migration().status?.source;
    const before = said?.attempt === attempt ? said : {};
    reporter.say(ref, { role: "source", words: { ...before, ...words, attempt } });
  }

  target(words: Partial<MigrationTarget> & Pick<MigrationTarget, "state">): void {
    const { attempt, migration: ref } = this.#parts.note();
    this.#parts.reporter.say(ref, { role: "target", words: { ...words, attempt } });
  }

  /** Says from now on how far the copying is. */
  startCounting(): void {
    this.#counting = true;
    this.#countLater(undefined);
  }

  stopCounting(): void {
    this.#counting = false;
    this.#parts.clock.clearTimeout(this.#timer);
  }

  #countLater(before: Sample | undefined): void {
    const { clock } = this.#parts;
    clock.clearTimeout(this.#timer);
    this.#timer = clock.setTimeout(() => void this.#count(before), REPORT_MS);
  }

  async #count(before: Sample | undefined): Promise<void> {
    const { clock, disks, log, note } = this.#parts;
    const { uid, name } = note().instance;
    let now = before;
    try {
      const disk = await disks.counters(uid);
      if (!this.#counting) return;
      now = { at: clock.monotonic(), bytes: disk.doneBytes };
      const memory = { ...NO_MEMORY, bytesPerSecond: 0 };
      const words = progressWords({ disk, memory, expectedPauseMs: undefined });
      this.source({ state: "CopyingDisk", ...words, ...rateWords(before, now) });
    } catch (error) {
      log.debug({ instance: name, error: errorText(error) }, "QEMU does not tell how far it is");
    }
    if (this.#counting) this.#countLater(now);
  }
}

/** From one look to the next. Pure. */
function rateWords(before: Sample | undefined, now: Sample): Pick<MigrationSource, "rate"> {
  if (before === undefined || now.at <= before.at || now.bytes < before.bytes) return {};
  return { rate: rateText((1_000 * (now.bytes - before.bytes)) / (now.at - before.at)) };
}
