/** Waiting longer after each failure, with jitter so that a thousand agents do not come back at once. */
export class Backoff {
  readonly #minMs: number;
  readonly #maxMs: number;
  readonly #random: () => number;
  #failures = 0;

  constructor(opts: { minMs?: number; maxMs?: number; random?: () => number } = {}) {
    this.#minMs = opts.minMs ?? 100;
    this.#maxMs = opts.maxMs ?? 8_000;
    this.#random = opts.random ?? Math.random;
  }

  /** Milliseconds to wait now: between half and all of a span that doubles with each call. */
  next(): number {
    const span = Math.min(this.#maxMs, this.#minMs * 2 ** this.#failures);
    this.#failures = Math.min(this.#failures + 1, 30);
    return span / 2 + (span / 2) * this.#random();
  }

  reset(): void {
    this.#failures = 0;
  }
}
