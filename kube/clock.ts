/** Time as a parameter, so that an hour passes in a test within a millisecond. */

export type TimerHandle = object;

export interface Clock {
  /** Milliseconds since 1970, as the wall shows them: for timestamps that people and other machines read. */
  now(): number;
  /** Milliseconds from some start; never goes back and never jumps when the wall clock is set: for durations and deadlines. */
  monotonic(): number;
  setTimeout(fn: () => void, ms: number): TimerHandle;
  clearTimeout(handle: TimerHandle | undefined): void;
}

// Node fires a longer timer at once.
const LONGEST = 2_147_483_647;

export const realClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  setTimeout: (fn, ms) => setTimeout(fn, Math.min(Math.max(0, ms), LONGEST)),
  clearTimeout: (handle) => clearTimeout(handle as NodeJS.Timeout | undefined),
};

/** Resolves after ms, or at once (without an error) when the signal aborts. */
export const sleep = (clock: Clock, ms: number, signal?: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal?.aborted) {
      resolve();
      return;
    }
    const done = (): void => {
      clock.clearTimeout(handle);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const handle = clock.setTimeout(done, ms);
    signal?.addEventListener("abort", done, { once: true });
  });

/** A clock that stands still until told to advance; due timers run in order, and what they start is let run between them. */
export class FakeClock implements Clock {
  #wall: number;
  #monotonic = 0;
  #serial = 0;
  readonly #timers = new Map<TimerHandle, { at: number; serial: number; fn: () => void }>();

  constructor(start: number | Date = Date.UTC(2026, 0, 1)) {
    this.#wall = Number(start);
  }

  now(): number {
    return this.#wall;
  }

  monotonic(): number {
    return this.#monotonic;
  }

  setTimeout(fn: () => void, ms: number): TimerHandle {
    const handle = {};
    this.#timers.set(handle, { at: this.#monotonic + Math.max(0, ms), serial: this.#serial++, fn });
    return handle;
  }

  clearTimeout(handle: TimerHandle | undefined): void {
    if (handle) this.#timers.delete(handle);
  }

  /** Timers not yet due. */
  get pending(): number {
    return this.#timers.size;
  }

  /** Milliseconds until the next timer; undefined when there is none. */
  get nextInMs(): number | undefined {
    const next = this.#next(Number.POSITIVE_INFINITY);
    return next ? next[1].at - this.#monotonic : undefined;
  }

  /** Lets ms pass. */
  async advance(ms: number): Promise<void> {
    const end = this.#monotonic + ms;
    await settle();
    for (let next = this.#next(end); next; next = this.#next(end)) {
      const [handle, timer] = next;
      this.#timers.delete(handle);
      this.#move(timer.at);
      timer.fn();
      await settle();
    }
    this.#move(end);
  }

  /** Sets the wall clock as an administrator or NTP would: durations and timers do not see it. */
  setWall(time: number | Date): void {
    this.#wall = Number(time);
  }

  /** Lets time pass without running any timer, as for a process that was stopped; they run at the next advance. */
  freeze(ms: number): void {
    this.#move(this.#monotonic + ms);
  }

  #move(to: number): void {
    if (to <= this.#monotonic) return;
    this.#wall += to - this.#monotonic;
    this.#monotonic = to;
  }

  #next(end: number): [TimerHandle, { at: number; serial: number; fn: () => void }] | undefined {
    return [...this.#timers]
      .filter(([, timer]) => timer.at <= end)
      .sort(([, a], [, b]) => a.at - b.at || a.serial - b.serial)
      .at(0);
  }
}

/** Lets promises that are ready, and what follows from them, run. */
const settle = async (): Promise<void> => {
  for (let round = 0; round < 5; round++) await new Promise((resolve) => setImmediate(resolve));
};
