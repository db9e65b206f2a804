/**
 * A work queue of keys: each key is in it at most once, never runs twice at a time, and comes back by itself after a failure.
 *
 * A key added while it runs is run once more afterwards: a change is never lost. Nothing is remembered about a key but how
 * often it failed in a row.
 */
import { backoffMs, type BackoffOptions } from "./backoff.ts";
import { realClock, type Clock, type TimerHandle } from "./clock.ts";
import { ApiError, TerminalError, errorText } from "./errors.ts";
import { silentLogger, type Logger } from "./logger.ts";
import { exposeQueue, queueMetrics } from "./metrics.ts";

/** Asks for another run after so long, though nothing failed. */
export interface Requeue {
  afterMs: number;
}

export interface QueueOptions {
  name: string;
  workers: number;
  run: (key: string) => Promise<Requeue | void>;
  backoff?: BackoffOptions | undefined;
  clock?: Clock | undefined;
  random?: (() => number) | undefined;
  logger?: Logger | undefined;
}

export class KeyedQueue {
  readonly #options: QueueOptions;
  readonly #clock: Clock;
  readonly #logger: Logger;
  /** Waiting for a worker, oldest first, with when it was put in. */
  readonly #ready = new Map<string, number>();
  /** Running, with when it began. */
  readonly #running = new Map<string, number>();
  /** Added again while running. */
  readonly #dirty = new Set<string>();
  readonly #delayed = new Map<string, { at: number; timer: TimerHandle }>();
  readonly #failures = new Map<string, number>();
  #state: "new" | "open" | "closed" = "new";
  #drained: () => void = () => undefined;

  constructor(options: QueueOptions) {
    this.#options = options;
    this.#clock = options.clock ?? realClock;
    this.#logger = options.logger ?? silentLogger;
  }

  /** Puts the key in, to be run as soon as a worker is free; what it was waiting for is overtaken. After the end: nothing. */
  add(key: string): void {
    if (this.#state === "closed") return;
    this.#forgetTimer(key);
    if (this.#running.has(key)) {
      this.#dirty.add(key);
      return;
    }
    if (this.#ready.has(key)) return;
    queueMetrics.added.inc({ controller: this.#options.name });
    this.#ready.set(key, this.#clock.monotonic());
    this.#pump();
  }

  /** Puts the key in after ms, unless it comes in sooner by another way. */
  addAfter(key: string, ms: number): void {
    if (this.#state === "closed" || this.#ready.has(key)) return;
    const at = this.#clock.monotonic() + ms;
    const waiting = this.#delayed.get(key);
    if (waiting && waiting.at <= at) return;
    this.#forgetTimer(key);
    this.#delayed.set(key, { at, timer: this.#clock.setTimeout(() => this.add(key), ms) });
  }

  /** How often the key failed in a row. */
  failuresOf(key: string): number {
    return this.#failures.get(key) ?? 0;
  }

  get depth(): number {
    return this.#ready.size;
  }

  get runningCount(): number {
    return this.#running.size;
  }

  /** Works until the signal aborts; resolves when the last run under way has ended. Keys still waiting are dropped. */
  start(signal: AbortSignal): Promise<void> {
    if (this.#state !== "new") return Promise.reject(new Error(`queue ${this.#options.name} was started already`));
    this.#state = "open";
    const hide = exposeQueue(() => ({
      controller: this.#options.name,
      depth: this.#ready.size,
      delayed: this.#delayed.size,
      running: this.#running.size,
      longestMs: this.#longestMs(),
    }));
    const end = new Promise<void>((resolve) => {
      this.#drained = resolve;
    }).finally(hide);
    if (signal.aborted) this.#close();
    else signal.addEventListener("abort", () => this.#close(), { once: true });
    this.#pump();
    return end;
  }

  #longestMs(): number {
    const now = this.#clock.monotonic();
    let longest = 0;
    for (const began of this.#running.values()) longest = Math.max(longest, now - began);
    return longest;
  }

  #close(): void {
    this.#state = "closed";
    for (const { timer } of this.#delayed.values()) this.#clock.clearTimeout(timer);
    this.#delayed.clear();
    this.#ready.clear();
    this.#dirty.clear();
    if (this.#running.size === 0) this.#drained();
  }

  #forgetTimer(key: string): void {
    this.#clock.clearTimeout(this.#delayed.get(key)?.timer);
    this.#delayed.delete(key);
  }

  #pump(): void {
    while (this.#state === "open" && this.#running.size < this.#options.workers) {
      const next = this.#ready.entries().next();
      if (next.done) return;
      const [key, since] = next.value;
      this.#ready.delete(key);
      queueMetrics.wait.observe({ controller: this.#options.name }, (this.#clock.monotonic() - since) / 1000);
      this.#running.set(key, this.#clock.monotonic());
      void this.#work(key);
    }
  }

  /** Never rejects. */
  async #work(key: string): Promise<void> {
    const began = this.#clock.monotonic();
    let result: string;
    let afterMs: number | undefined;
    try {
      const requeue = await this.#options.run(key);
      this.#failures.delete(key);
      result = requeue ? "requeue" : "success";
      afterMs = requeue?.afterMs;
    } catch (error) {
      [result, afterMs] = this.#failed(key, error);
    }
    queueMetrics.duration.observe({ controller: this.#options.name, result }, (this.#clock.monotonic() - began) / 1000);
    this.#running.delete(key);
    if (this.#state === "closed") {
      if (this.#running.size === 0) this.#drained();
      return;
    }
    const again = this.#dirty.delete(key);
    if (again) this.add(key);
    else if (afterMs !== undefined) this.addAfter(key, afterMs);
    this.#pump();
  }

  #failed(key: string, error: unknown): [result: string, afterMs: number | undefined] {
    const controller = this.#options.name;
    if (error instanceof TerminalError) {
      this.#failures.delete(key);
      this.#logger.warn({ controller, key, error: errorText(error) }, "cannot be done until the object changes");
      return ["terminal", undefined];
    }
    const failures = this.failuresOf(key) + 1;
    this.#failures.set(key, failures);
    const wait = backoffMs(failures, this.#options.backoff, this.#options.random);
    const afterMs = Math.max(wait, error instanceof ApiError ? (error.retryAfterMs ?? 0) : 0);
    queueMetrics.retries.inc({ controller });
    // A conflict is the ordinary way to learn that somebody else wrote first.
    const level = error instanceof ApiError && error.isConflict && failures < 5 ? "debug" : "warn";
    this.#logger[level](
      { controller, key, failures, retryInMs: Math.round(afterMs), error: errorText(error) },
      "reconcile failed",
    );
    return ["error", afterMs];
  }
}
