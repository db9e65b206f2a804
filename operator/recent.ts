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

/** Whether `a` is certainly older. Resource versions that are no numbers cannot be compared: then the cache is believed. */
function isOlder(a: KubeObject, b: KubeObject): boolean {
  const [left, right] = [a.metadata.resourceVersion ?? "", b.metadata.resourceVersion ?? ""];
  return /^\d+$/.test(left) && /^\d+$/.test(right) && BigInt(left) < BigInt(right);
}

const isSame = (a: KubeObject, b: KubeObject): boolean =>
  a.metadata.uid === b.metadata.uid && a.metadata.resourceVersion === b.metadata.resourceVersion;

/** A cache that never shows less than what this process itself has written. Uses no memory once the cache has caught up. */
export class Recent<T extends KubeObject> {
  readonly #cache: Cache<T>;
  readonly #clock: Clock;
  readonly #written = new Map<string, { object: T; at: number }>();

  constructor(cache: Cache<T>, clock: Clock) {
    this.#cache = cache;
    this.#clock = clock;
    cache.onChange((change) => this.#seen(change));
  }

  /** Keeps what a write returned. */
  put(object: T): void {
    const key = keyOf(object);
    const cached = this.#cache.get(key);
    if (cached !== undefined && !isOlder(cached, object) && !isSame(cached, object)) return;
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

  #seen({ key, old, now }: Change<T>): void {
    const entry = this.#written.get(keyText(key));
    if (entry === undefined) return;
    const newer = now === undefined ? old?.metadata.uid !== entry.object.metadata.uid : isOlder(now, entry.object);
    if (!newer) this.#written.delete(keyText(key));
  }
}
