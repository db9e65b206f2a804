/** The objects that we have just written, until the cache shows them: so that nothing is written, or made, twice. */
import { keyOf, keyText, type Change, type Clock, type KubeObject, type ObjectKey } from "../kube/index.ts";

/** What this needs of an informer. */
export interface Cache<T extends KubeObject> {
  get(key: ObjectKey): T | undefined;
  onChange(fn: (change: Change<T>) => void): () => void;
}

/**
 * After this the cache is believed in any case: an object that we made, and that was deleted while the watch was broken, never shows up.
 */
export const RECENT_MS = 30_000;

/** Whether `a` is not older than `b`. Resource versions that are no numbers cannot be compared: then the cache wins. */
function notOlder(a: KubeObject, b: KubeObject): boolean {
  const [left, right] = [a.metadata.resourceVersion ?? "", b.metadata.resourceVersion ?? ""];
  return /^\d+$/.test(left) && /^\d+$/.test(right) && BigInt(left) >= BigInt(right);
}

/** A cache that never shows less than what this process itself has written. Uses no memory once the cache has caught up. */
export class Recent<T extends KubeObject> {
  readonly #cache: Cache<T>;
  readonly #clock: Clock;
  readonly #written = new Map<string, { object: T; at: number }>();

  constructor(cache: Cache<T>, clock: Clock) {
    this.#cache = cache;
    this.#clock = clock;
    cache.onChange(({ key, now }) => this.#seen(keyText(key), now));
  }

  /** Keeps what a write returned. */
  put(object: T): void {
    const key = keyOf(object);
    const cached = this.#cache.get(key);
    if (cached !== undefined && cached.metadata.uid === object.metadata.uid && !notOlder(object, cached)) return;
    this.#written.set(keyText(key), { object, at: this.#clock.monotonic() });
  }

  /** The newer of what the cache shows and what was written. */
  get(key: ObjectKey): T | undefined {
    return this.written(key) ?? this.#cache.get(key);
  }

  /** What was written and is not yet in the cache. */
  written(key: ObjectKey): T | undefined {
    const entry = this.#written.get(keyText(key));
    if (entry === undefined) return undefined;
    if (this.#clock.monotonic() - entry.at <= RECENT_MS) return entry.object;
    this.#written.delete(keyText(key));
    return undefined;
  }

  #seen(key: string, now: T | undefined): void {
    const entry = this.#written.get(key);
    if (entry === undefined) return;
    // Another uid is another object: whichever of the two is older has gone.
    const stale = now !== undefined && !notOlder(now, entry.object);
    if (!stale) this.#written.delete(key);
  }
}
