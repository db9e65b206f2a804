/** Work that several callers wait for, done once. */

interface Task<T> {
  promise: Promise<T>;
  waiters: number;
  abort: AbortController;
}

/** The work is stopped when its last waiter has left. */
export class SharedTasks<T> {
  readonly #tasks = new Map<string, Task<T>>();

  /** Keys of the work under way. */
  keys(): string[] {
    return [...this.#tasks.keys()];
  }

  /** Joins the work of this key, or starts it. A waiter whose signal aborts leaves with the signal's reason. */
  async join(key: string, signal: AbortSignal, start: (signal: AbortSignal) => Promise<T>): Promise<T> {
    signal.throwIfAborted();
    const task = this.#tasks.get(key) ?? this.#start(key, start);
    task.waiters += 1;
    const left = Promise.withResolvers<never>();
    const leave = (): void => left.reject(signal.reason);
    signal.addEventListener("abort", leave, { once: true });
    try {
      return await Promise.race([task.promise, left.promise]);
    } finally {
      signal.removeEventListener("abort", leave);
      task.waiters -= 1;
      if (task.waiters === 0) {
        // Whoever comes now begins anew: this one is ending.
        if (this.#tasks.get(key) === task) this.#tasks.delete(key);
        task.abort.abort(signal.reason);
      }
    }
  }

  #start(key: string, start: (signal: AbortSignal) => Promise<T>): Task<T> {
    const abort = new AbortController();
    const promise = start(abort.signal).finally(() => {
      if (this.#tasks.get(key) === task) this.#tasks.delete(key);
    });
    // Its last waiter may have left before it fails.
    promise.catch(() => undefined);
    const task: Task<T> = { promise, waiters: 0, abort };
    this.#tasks.set(key, task);
    return task;
  }
}
