/** One after the other for each key; different keys at the same time. */
export class Locks {
  readonly #tails = new Map<string, Promise<unknown>>();

  /** Runs the task when all earlier ones of this key have ended, however they ended. */
  run<T>(key: string, task: () => Promise<T>): Promise<T> {
    const result = (this.#tails.get(key) ?? Promise.resolve()).then(task, task);
    const tail = result
      .catch(() => undefined)
      .then(() => {
        if (this.#tails.get(key) === tail) this.#tails.delete(key);
      });
    this.#tails.set(key, tail);
    return result;
  }
}
