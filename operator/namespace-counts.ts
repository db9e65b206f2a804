/** How many objects each namespace has, without counting them each time. */
import { keyText, type Change, type KubeObject } from "../kube/index.ts";

export class NamespaceCounts {
  readonly #names = new Map<string, Set<string>>();

  constructor(cache: { onChange(fn: (change: Change) => void): unknown }) {
    cache.onChange(({ key, now }) => this.#note(key.namespace ?? "", keyText(key), now));
  }

  of(namespace: string): number {
    return this.#names.get(namespace)?.size ?? 0;
  }

  #note(namespace: string, name: string, now: KubeObject | undefined): void {
    const names = this.#names.get(namespace) ?? new Set();
    if (now === undefined) names.delete(name);
    else names.add(name);
    if (names.size === 0) this.#names.delete(namespace);
    else this.#names.set(namespace, names);
  }
}
