/** The pause of a guest that leaves: when it began and ended, its steps, and what is told of it. */
import type { MigrationSource } from "../../../crds/migration.ts";
import { errorText } from "../../errors.ts";
import type { MoveNote } from "../notes.ts";
import type { SideParts } from "../parts.ts";
import { pauseWords, progressWords, type Mark } from "./words.ts";

/** What the target says of the guest that it has let run. */
export interface TargetRan {
  /** Its steps, ms since it heard `go`. */
  marks: readonly { mark: string; ms: number }[];
  /** How long the guest has run there. */
  agoMs?: number | undefined;
}

export class Pause {
  readonly #parts: Pick<SideParts, "moves" | "metrics" | "clock" | "log">;
  readonly #marks: Mark[] = [];
  #allowedAt: number | undefined;
  #stoppedAt: number | undefined;
  #ranAt: number | undefined;
  #over = false;
  /** The guest was stopped under this agent, not under one before it. */
  #sawStop = false;

  /** `stoppedAt`: as an earlier agent noted it. */
  constructor(parts: Pick<SideParts, "moves" | "metrics" | "clock" | "log">, stoppedAt: number | undefined) {
    this.#parts = parts;
    this.#stoppedAt = stoppedAt;
  }

  /** When it was allowed, on the monotonic clock. */
  get allowedAt(): number | undefined {
    return this.#allowedAt;
  }

  /** When the guest was stopped, ms since 1970. */
  get stoppedAt(): number | undefined {
    return this.#stoppedAt;
  }

  get over(): boolean {
    return this.#over;
  }

  /** May be repeated: it has been allowed since the first time. */
  allow(): void {
    this.#allowedAt ??= this.#parts.clock.monotonic();
  }

  /** Only the pause of the switchover is one of the move's. */
  stopped(at: number): void {
    if (this.#allowedAt === undefined) return;
    this.#stoppedAt ??= at;
    this.#sawStop = true;
  }

  mark(mark: string): number {
    const at = this.#parts.clock.now();
    this.#marks.push({ mark, at });
    return at;
  }

  /** The guest runs at the target; undefined: that is known, yet not from the target. */
  ran(told: TargetRan | undefined): void {
    this.#over = true;
    const heardAt = this.mark("ran");
    // An agent that saw neither its beginning nor hears of its end knows no pause: its own absence would be part of it.
    if (told === undefined && !this.#sawStop) return;
    const latest = heardAt - (told?.agoMs ?? 0);
    const resumedMs = told?.marks.findLast(({ mark }) => mark === "resumed")?.ms;
    const goAt = resumedMs === undefined ? undefined : this.#goBefore(latest - resumedMs);
    if (told === undefined || resumedMs === undefined || goAt === undefined) {
      this.#ranAt = latest;
      return;
    }
    this.#marks.push(...told.marks.map(({ mark, ms }) => ({ mark: `target-${mark}`, at: goAt + ms })));
    this.#ranAt = goAt + resumedMs;
  }

  /**
   * The `go` that the target counts from: one of several where a connection broke or its agent was replaced. Counted from a later one, the
   * guest would run only after that was heard of.
   */
  #goBefore(at: number): number | undefined {
    return this.#marks.findLast((one) => one.mark === "go-sent" && one.at <= at)?.at;
  }

  /** The guest runs on here; the next pause is another one. */
  forget(): void {
    this.#stoppedAt = undefined;
    this.#allowedAt = undefined;
    this.#sawStop = false;
  }

  /** What is told of it, and of the whole move: asked of QEMU as long as that is there. */
  async figures({ instance: { uid, name }, postCopy }: MoveNote): Promise<Partial<MigrationSource>> {
    const { moves, metrics, log } = this.#parts;
    const driverMarks = moves.marks(uid).map((one) => ({ mark: one.name, at: one.at }));
    const stoppedAt = this.#stoppedAt ?? driverMarks.findLast(({ mark }) => mark === "stopped")?.at;
    let downtimeMs: number | undefined;
    let last: Partial<MigrationSource> = {};
    try {
      const counters = await moves.counters(uid);
      downtimeMs = counters.downtimeMs;
      last = progressWords(counters);
      metrics.sent({ memory: counters.memory.doneBytes, disk: counters.disk.doneBytes });
    } catch (error) {
      log.debug({ instance: name, error: errorText(error) }, "QEMU does not tell its last figures");
    }
    // By post-copy it is not over yet: rest.ts tells on.
    const over = postCopy === true ? {} : { progress: "100%", stalled: undefined };
    const qemu = downtimeMs === undefined ? {} : { qemuDowntimeMs: Math.round(downtimeMs) };
    const words = { ...last, ...over, ...qemu, expectedPauseMs: undefined };
    if (stoppedAt === undefined || this.#ranAt === undefined) return words;
    const pause = pauseWords(stoppedAt, this.#ranAt, [...driverMarks, ...this.#marks]);
    metrics.paused(pause.pauseMs);
    return { ...words, ...pause };
  }
}
