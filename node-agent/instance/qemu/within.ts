import type { Clock } from "../../../kube/clock.ts";

/** The promise's outcome, or an error when `ms` have passed or the signal aborts before it has one. Cancels nothing. */
export async function within<T>(promise: Promise<T>, ms: number, clock: Clock, signal?: AbortSignal): Promise<T> {
  signal?.throwIfAborted();
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = clock.setTimeout(() => reject(new Error(`not done within ${ms} ms`)), ms);
  const abort = (): void => reject(signal?.reason instanceof Error ? signal.reason : new Error("cancelled"));
  signal?.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clock.clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}
