/**
 * Which of the moments at which a guest may be stopped is taken. A guest that writes less than the link carries leaves less with every
 * pass: the first pause that is allowed is then several times what it could be a moment later. Pure but for what it remembers.
 */

/**
 * A pause that is not worth another pass: not twice what every pause takes besides what is copied. A pass that makes it shorter yet takes some
 * twice as long as it saves (a guest that writes 100 MiB/s over 48 MiB, sent at 250 to 300), but nobody notices that.
 */
const SHORT_MS = 50;
/** A look that finds less than this share of the shortest so far has brought something. */
const WORTH = 0.9;
/** After so many that have not, the next one about as short as the shortest is taken: what a guest writes is not the same at any time. */
const IN_VAIN = 2;
const ABOUT = 1.3;
/** The pauses that were let go by are no promise: after this the next one that is allowed is taken. */
const FOR_MS = 2_000;

export class Patience {
  #since: number | undefined;
  #best = Number.POSITIVE_INFINITY;
  #inVain = 0;

  /** Whether now, ms by any clock that does not jump, is the moment. To be asked about once a pass. */
  isOver(now: number, expectedPauseMs: number | undefined, allowedMs: number): boolean {
    if (expectedPauseMs === undefined || expectedPauseMs > allowedMs) return false;
    this.#since ??= now;
    if (expectedPauseMs <= SHORT_MS || now - this.#since >= FOR_MS) return true;
    if (expectedPauseMs < this.#best * WORTH) {
      this.#best = expectedPauseMs;
      this.#inVain = 0;
      return false;
    }
    this.#inVain += 1;
    return this.#inVain >= IN_VAIN && expectedPauseMs <= this.#best * ABOUT;
  }
}
