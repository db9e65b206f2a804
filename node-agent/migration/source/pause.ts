/** The pause of a guest that leaves: when it began and ended, its steps, and what is told of it. */
import type { MigrationSource } from "../../../crds/migration.ts";
import { errorText } from "../../errors.ts";
import type { MoveNote } from "../notes.ts";
import type { SideParts } from "../parts.ts";
import { pauseWords, progressWords, type Mark } from "./words.ts";

export class Pause {
  readonly #parts: Pick<SideParts, "moves" | "metrics" | "clock" | "log">;
  readonly #marks: Mark[] = [];
  #allowedAt: number | undefined;
  #stoppedAt: number | undefined;
  #ranAt: number | undefined;

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
    return this.#ranAt !== undefined;
  }

  /** May be repeated: it has been allowed since the first time. */
  allow(): void {
    this.#allowedAt ??= this.#parts.clock.monotonic();
  }

  /** Only the pause of the switchover is one of the move's. */
  stopped(at: number): void {
    if (this.#allowedAt !== undefined) this.#stoppedAt ??= at;
  }

  mark(mark: string): number {
    const at = this.#parts.clock.now();
    this.#marks.push({ mark, at });
    return at;
  }

  /** The guest runs at the target, for how long already its marks tell, which count from `go`; without them it is since now. */
  ran(marks: readonly { mark: string; ms: number }[]): void {
    const heardAt = this.mark("ran");
    const goAt = this.#marks.find(({ mark }) => mark === "go-sent")?.at;
    const told = goAt === undefined ? [] : marks.map(({ mark, ms }) => ({ mark: `target-${mark}`, at: goAt + ms }));
    this.#marks.push(...told);
    this.#ranAt = told.findLast(({ mark }) => mark === "target-resumed")?.at ?? heardAt;
  }

  /** The guest runs on here; the next pause is another one. */
  forget(): void {
    this.#stoppedAt = undefined;
    this.#allowedAt = undefined;
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
    if (stoppedAt === undefined || this.#ranAt === undefined) return last;
    const words = pauseWords(stoppedAt, this.#ranAt, [...driverMarks, ...this.#marks], downtimeMs);
    metrics.paused(words.pauseMs ?? 0);
    // By post-copy it is not over yet: rest.ts tells on.
    const over = postCopy === true ? {} : { progress: "100%", stalled: undefined };
    return { ...last, ...words, ...over, expectedPauseMs: undefined };
  }
}
