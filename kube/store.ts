/** The informer's memory: objects by key and by index, and what a new state changes. Pure but for its own maps. */
import { keyOf, keyText } from "./keys.ts";
import type { Change, KubeObject, ObjectKey } from "./types.ts";

export type IndexFunctions<T> = Record<string, (object: T) => string[]>;

export class Store<T extends KubeObject> {
  readonly #objects = new Map<string, T>();
  readonly #functions: IndexFunctions<T>;
  readonly #indexes = new Map<string, Map<string, Set<string>>>();

  constructor(functions: IndexFunctions<T> = {}) {
    this.#functions = functions;
    for (const name of Object.keys(functions)) this.#indexes.set(name, new Map());
  }

  get size(): number {
    return this.#objects.size;
  }

  get(key: ObjectKey): T | undefined {
    return this.#objects.get(keyText(key));
  }

  list(): T[] {
    return [...this.#objects.values()];
  }

  /**
   * Objects that the index function gave this value.
   * @throws when there is no such index
   */
  byIndex(index: string, value: string): T[] {
    const values = this.#indexes.get(index);
    if (!values) throw new Error(`there is no index ${index}; there are: ${[...this.#indexes.keys()].join(", ") || "none"}`);
    const found: T[] = [];
    for (const text of values.get(value) ?? []) {
      const object = this.#objects.get(text);
      if (object) found.push(object);
    }
    return found;
  }

  /** Puts the object in. Another uid under the same name is two changes: the old one is gone, a new one is there. */
  set(object: T): Change<T>[] {
    const key = keyOf(object);
    const old = this.#objects.get(keyText(key));
    // After a list, or a watch that resumed a little before its end, the same version comes again.
    if (old && old.metadata.uid === object.metadata.uid && old.metadata.resourceVersion === object.metadata.resourceVersion)
      return [];
    this.#put(keyText(key), old, object);
    if (!old) return [{ key, now: object }];
    if (old.metadata.uid === object.metadata.uid) return [{ key, old, now: object }];
    return [
      { key, old },
      { key, now: object },
    ];
  }

  /** Takes the object out; `last` is its final state, if the server told it. */
  remove(key: ObjectKey, last?: T): Change<T>[] {
    const text = keyText(key);
    const old = this.#objects.get(text);
    if (!old) return [];
    this.#put(text, old, undefined);
    return [{ key, old: last && last.metadata.uid === old.metadata.uid ? last : old }];
  }

  /** Makes the store hold exactly these. Deletions come first, so that what they free may be taken by what is new. */
  replace(objects: Iterable<T>): Change<T>[] {
    const wanted = new Map<string, T>();
    for (const object of objects) wanted.set(keyText(keyOf(object)), object);
    const changes: Change<T>[] = [];
    for (const [text, old] of this.#objects) if (!wanted.has(text)) changes.push(...this.remove(keyOf(old)));
    for (const object of wanted.values()) changes.push(...this.set(object));
    return changes;
  }

  #put(text: string, old: T | undefined, now: T | undefined): void {
    for (const [name, valuesOf] of Object.entries(this.#functions)) {
      const index = this.#indexes.get(name);
      if (!index) continue;
      for (const value of old ? valuesOf(old) : []) {
        const texts = index.get(value);
        texts?.delete(text);
        if (texts?.size === 0) index.delete(value);
      }
      for (const value of now ? valuesOf(now) : []) {
        const texts = index.get(value);
        if (texts) texts.add(text);
        else index.set(value, new Set([text]));
      }
    }
    if (now) this.#objects.set(text, now);
    else this.#objects.delete(text);
  }
}
