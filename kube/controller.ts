/** Informers, a queue and a reconcile function, put together. */
import type { BackoffOptions } from "./backoff.ts";
import { realClock, sleep, type Clock } from "./clock.ts";
import type { Informer } from "./informer.ts";
import { keyText, parseKey } from "./keys.ts";
import { silentLogger, type Logger } from "./logger.ts";
import { KeyedQueue, type Requeue } from "./queue.ts";
import type { Change, KubeObject, ObjectKey } from "./types.ts";

export interface ControllerOptions {
  /** In logs and metrics. */
  name: string;
  /** Keys worked on at a time; default 4. */
  workers?: number;
  /**
   * Makes the world as the object wants it. Called with a key only: it reads what is (the object may be gone). Returns
   * when to look again, if not only on change. A throw is tried again with back-off; TerminalError is not.
   * The signal aborts when the controller stops or the deadline is over.
   */
  reconcile: (key: ObjectKey, signal: AbortSignal) => Promise<Requeue | void>;
  /** Deadline of one reconcile, ms; default 5 minutes. It aborts the signal; code that looks at no signal goes on. */
  deadlineMs?: number;
  /** How long a stop waits for reconciles under way, ms; default 20 s (pods have 30). */
  drainMs?: number;
  backoff?: BackoffOptions;
  clock?: Clock;
  random?: () => number;
  logger?: Logger;
}

interface Source {
  synced: Promise<void>;
  unwatch: () => void;
}

export class Controller {
  readonly name: string;
  readonly #options: ControllerOptions;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #queue: KeyedQueue;
  readonly #sources: Source[] = [];
  #signal: AbortSignal | undefined;

  constructor(options: ControllerOptions) {
    this.name = options.name;
    this.#options = options;
    this.#clock = options.clock ?? realClock;
    this.#logger = options.logger ?? silentLogger;
    const { name, workers = 4, backoff, random } = options;
    this.#queue = new KeyedQueue({
      name,
      workers,
      run: (key) => this.#reconcile(parseKey(key)),
      backoff,
      random,
      clock: this.#clock,
      logger: this.#logger,
    });
  }

  /**
   * Changes in this informer enqueue keys; without `map` the object's own. The informer is started by its owner.
   * A map that throws is the informer's handler error: logged, counted, the change is lost.
   */
  watch<T extends KubeObject>(informer: Informer<T>, map: (change: Change<T>) => ObjectKey[] = (change) => [change.key]): this {
    const unwatch = informer.onChange((change) => {
      for (const key of map(change)) this.enqueue(key);
    });
    this.#sources.push({ synced: informer.synced, unwatch });
    return this;
  }

  /** May be called at any time and often; a key waiting already is not put in twice. */
  enqueue(key: ObjectKey): void {
    this.#queue.add(keyText(key));
  }

  /** Keys waiting for a worker. */
  get depth(): number {
    return this.#queue.depth;
  }

  /**
   * Waits until every watched informer has synced, then works until the signal aborts. Resolves when no reconcile runs any
   * more, at the latest drainMs after the abort. To be called once.
   */
  async start(signal: AbortSignal): Promise<void> {
    if (this.#signal) throw new Error(`controller ${this.name} was started already`);
    this.#signal = signal;
    try {
      await untilAborted(signal, Promise.all(this.#sources.map((source) => source.synced)));
      if (signal.aborted) return;
      this.#logger.info({ controller: this.name, keys: this.#queue.depth }, "controller starts");
      const drained = this.#queue.start(signal);
      await untilAborted(signal, drained);
      await this.#drain(drained);
    } finally {
      for (const source of this.#sources) source.unwatch();
    }
  }

  async #drain(drained: Promise<void>): Promise<void> {
    const waiting = new AbortController();
    const late = sleep(this.#clock, this.#options.drainMs ?? 20_000, waiting.signal).then(() => !waiting.signal.aborted);
    const tooLate = await Promise.race([drained.then(() => false), late]);
    waiting.abort();
    if (tooLate)
      this.#logger.error({ controller: this.name, running: this.#queue.runningCount }, "stopped with reconciles still running");
  }

  async #reconcile(key: ObjectKey): Promise<Requeue | void> {
    const one = new AbortController();
    const stop = (): void => one.abort(this.#signal?.reason);
    this.#signal?.addEventListener("abort", stop, { once: true });
    const deadlineMs = this.#options.deadlineMs ?? 300_000;
    const timer = this.#clock.setTimeout(() => one.abort(new Error(`reconcile took longer than ${deadlineMs} ms`)), deadlineMs);
    try {
      return await this.#options.reconcile(key, one.signal);
    } finally {
      this.#clock.clearTimeout(timer);
      this.#signal?.removeEventListener("abort", stop);
    }
  }
}

/** Resolves with the promise or at the abort, whichever is first; leaves no listener behind. */
const untilAborted = async (signal: AbortSignal, promise: Promise<unknown>): Promise<void> => {
  if (signal.aborted) return;
  let stop: () => void = () => undefined;
  const aborted = new Promise<void>((resolve) => {
    stop = resolve;
    signal.addEventListener("abort", stop, { once: true });
  });
  try {
    await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
};
