/** What a side of a move has begun and not ended yet, and how it waits for news. */
import { backoffMs, type Clock, type Logger } from "../../kube/index.ts";
import { errorText } from "../errors.ts";
import type { MoveNote } from "./notes.ts";

/** Wakes one waiter; a call while nobody waits is not lost. */
export class Wake {
  #set = false;
  #resolve: (() => void) | undefined;

  call(): void {
    this.#set = true;
    this.#resolve?.();
  }

  /** Resolves at the next call, or at once after one that nobody waited for. */
  async wait(): Promise<void> {
    if (!this.#set) {
      await new Promise<void>((resolve) => {
        this.#resolve = resolve;
      });
    }
    this.#set = false;
    this.#resolve = undefined;
  }
}

/** A timer holds no more than 2^31 ms. */
const LONGEST_TIMER_MS = 86_400_000;

/** One timer for many reasons: it calls at the earliest time that was asked for since it was cleared. */
export class Alarm {
  readonly #clock: Clock;
  readonly #call: () => void;
  #timer: object | undefined;
  #at = Number.POSITIVE_INFINITY;

  constructor(clock: Clock, call: () => void) {
    this.#clock = clock;
    this.#call = call;
  }

  /** Far away it calls before that. */
  in(ms: number): void {
    const soon = Math.min(ms, LONGEST_TIMER_MS);
    const at = this.#clock.monotonic() + soon;
    if (at >= this.#at) return;
    this.#clock.clearTimeout(this.#timer);
    this.#at = at;
    this.#timer = this.#clock.setTimeout(() => {
      this.#at = Number.POSITIVE_INFINITY;
      this.#call();
    }, soon);
  }

  clear(): void {
    this.#clock.clearTimeout(this.#timer);
    this.#at = Number.POSITIVE_INFINITY;
  }
}

const RETRY = { baseMs: 250, capMs: 5_000, jitter: 0.2 };

/** Work in the background: of each key one at a time, and after a failure not at once again. */
export class Underway {
  readonly #running = new Map<string, Promise<void>>();
  readonly #failures = new Map<string, { count: number; until: number }>();
  readonly #timers = new Set<object>();
  readonly #clock: Clock;
  readonly #ended: () => void;
  readonly #failed: (key: string, error: unknown, count: number) => void;

  /** `ended` is called after each work, and when one that failed may be tried again. */
  constructor(parts: { clock: Clock; ended: () => void; failed: (key: string, error: unknown, count: number) => void }) {
    this.#clock = parts.clock;
    this.#ended = parts.ended;
    this.#failed = parts.failed;
  }

  has(key: string): boolean {
    return this.#running.has(key);
  }

  /** Begins it, unless it runs or rests. */
  start(key: string, work: () => Promise<void>): void {
    const rests = (this.#failures.get(key)?.until ?? 0) > this.#clock.monotonic();
    if (this.#running.has(key) || rests) return;
    const ending = work()
      .then(
        () => void this.#failures.delete(key),
        (error: unknown) => this.#rest(key, error),
      )
      .finally(() => {
        this.#running.delete(key);
        this.#ended();
      });
    this.#running.set(key, ending);
  }

  /** Resolves when nothing runs any more. Nothing is tried again after this. */
  async close(): Promise<void> {
    for (const timer of this.#timers) this.#clock.clearTimeout(timer);
    while (this.#running.size > 0) await Promise.all(this.#running.values());
    for (const timer of this.#timers) this.#clock.clearTimeout(timer);
  }

  #rest(key: string, error: unknown): void {
    const count = (this.#failures.get(key)?.count ?? 0) + 1;
    const wait = backoffMs(count, RETRY);
    this.#failures.set(key, { count, until: this.#clock.monotonic() + wait });
    const timer = this.#clock.setTimeout(() => {
      this.#timers.delete(timer);
      this.#ended();
    }, wait + 1);
    this.#timers.add(timer);
    this.#failed(key, error, count);
  }
}

/** Of one side of a move, whose first failures are logged; `ended` as in Underway. */
export const underwayOf = (
  { migration, attempt }: MoveNote,
  { clock, log }: { clock: Clock; log: Logger },
  ended: () => void,
): Underway =>
  new Underway({
    clock,
    ended,
    failed: (key, error, count) => {
      const about = { migration: `${migration.namespace}/${migration.name}`, attempt, error: errorText(error) };
      if (count === 1) log.warn(about, `${key} failed; trying again`);
    },
  });
