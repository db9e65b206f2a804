/** Instances that could not have what they need, and what they wait for: so that only they are told when it is there. */

export class Waiting {
  readonly #byThing = new Map<string, Set<string>>();
  readonly #byKey = new Map<string, string[]>();

  /** Notes what an instance ("<namespace>/<name>") waits for, instead of what it waited for before. */
  set(key: string, things: readonly string[]): void {
    this.clear(key);
    if (things.length > 0) this.#byKey.set(key, [...things]);
    for (const thing of things) {
      const keys = this.#byThing.get(thing) ?? new Set();
      this.#byThing.set(thing, keys.add(key));
    }
  }

  clear(key: string): void {
    for (const thing of this.#byKey.get(key) ?? []) {
      const keys = this.#byThing.get(thing);
      keys?.delete(key);
      if (keys?.size === 0) this.#byThing.delete(thing);
    }
    this.#byKey.delete(key);
  }

  /** Who waits for this; with `limit`, those who have waited longest. They stay noted until they are set or cleared. */
  on(thing: string, limit = Number.POSITIVE_INFINITY): string[] {
    const keys: string[] = [];
    for (const key of this.#byThing.get(thing) ?? []) {
      if (keys.length >= limit) break;
      keys.push(key);
    }
    return keys;
  }
}
