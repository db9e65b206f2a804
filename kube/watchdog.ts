/** Notices that something has fallen silent. */
import type { Clock, TimerHandle } from "./clock.ts";

/** Barks once when it was not fed for so long. */
export class Watchdog {
  barked = false;
  /** How often it was fed. */
  fed = 0;
  readonly #clock: Clock;
  readonly #ms: number;
  readonly #bark: () => void;
  #last: number;
  #timer: TimerHandle | undefined;

  constructor(clock: Clock, ms: number, bark: () => void) {
    this.#clock = clock;
    this.#ms = ms;
    this.#bark = bark;
    this.#last = clock.monotonic();
    this.#arm(ms);
  }

  feed(): void {
    this.fed++;
    this.#last = this.#clock.monotonic();
  }

  stop(): void {
    this.#clock.clearTimeout(this.#timer);
  }

  /** One timer that looks when it was fed last, not a timer per event. */
  #arm(ms: number): void {
    this.#timer = this.#clock.setTimeout(() => {
      const left = this.#last + this.#ms - this.#clock.monotonic();
      if (left > 0) {
        this.#arm(left);
        return;
      }
      this.barked = true;
      this.#bark();
    }, ms);
  }
}
