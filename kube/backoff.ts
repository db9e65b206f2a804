/** How long to wait after the nth failure in a row. */

export interface BackoffOptions {
  /** Wait after the first failure, ms. */
  baseMs?: number;
  /** Longest wait, ms. */
  capMs?: number;
  /** Part of the wait that is left to chance, 0..1: keeps a thousand keys that failed together from coming back together. */
  jitter?: number;
}

/**
 * Wait in ms after `failures` failures in a row (1 = the first): doubles from baseMs up to capMs, of which the last `jitter`
 * part is random.
 */
export const backoffMs = (failures: number, options: BackoffOptions = {}, random: () => number = Math.random): number => {
  const { baseMs = 200, capMs = 60_000, jitter = 0.5 } = options;
  // 2^31 times any base is beyond every cap; a larger exponent would only overflow.
  const full = Math.min(capMs, baseMs * 2 ** Math.min(31, Math.max(0, failures - 1)));
  return full * (1 - jitter) + full * jitter * random();
};
