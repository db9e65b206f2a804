/**
 * A cache of one resource that keeps itself true: list, then watch from there, and whatever happens to the watch, again.
 *
 * What it promises: every change is told at least once, in the order of each object's own life, possibly merged (a change
 * that was overtaken while the watch was away is never seen). What it assumes: handlers return at once; work belongs in a queue.
 */
import { backoffMs, type BackoffOptions } from "./backoff.ts";
import type { KubeClient, ListOptions } from "./client.ts";
import { realClock, sleep, type Clock } from "./clock.ts";
import { ApiError, TransportError, errorText } from "./errors.ts";
import { keyOf } from "./keys.ts";
import { silentLogger, type Logger } from "./logger.ts";
import { exposeInformer, informerMetrics } from "./metrics.ts";
import { resourceText } from "./resources.ts";
import { Store, type IndexFunctions } from "./store.ts";
import type { Change, KubeObject, ObjectKey, ResourceType } from "./types.ts";
import { watchEvents, type WatchEvent } from "./watch.ts";
import { Watchdog } from "./watchdog.ts";

export interface InformerOptions<T extends KubeObject> extends ListOptions {
  indexes?: IndexFunctions<T>;
  /** Makes objects smaller before they are kept; managedFields are dropped in any case. */
  transform?: (object: T) => T;
  /**
   * A watch that said nothing for so long, not even a bookmark, is taken for dead; ms, default 100 s. Servers send a bookmark
   * about once a minute, but none of a resource that never changed since they started: then this costs one new watch each time.
   */
  silenceMs?: number;
  backoff?: BackoffOptions;
  clock?: Clock;
  random?: () => number;
  logger?: Logger;
  pageSize?: number;
}

/** What the informer had to do so far; for tests and for the curious. */
export interface InformerCounters {
  lists: number;
  watches: number;
  events: number;
  bookmarks: number;
  /** Told 410: the place to resume from was no longer kept. */
  expired: number;
  /** Watches given up because they said nothing. */
  silences: number;
  /** Watches and lists that broke. */
  failures: number;
  handlerErrors: number;
}

/** After so many silent watches in a row the list is read anew. */
const SILENCES = 4;
/** A watch that was open for so long was a good one, whatever ended it: what follows is a first failure. */
const LIVED_MS = 10_000;

type Handler<T extends KubeObject> = (change: Change<T>) => void;

/** After so many watches in a row that were answered badly, the list is read anew: the place to resume from may be at fault. */
const BAD_ANSWERS = 3;

export class Informer<T extends KubeObject> {
  readonly type: ResourceType<T>;
  readonly counters: InformerCounters = {
    lists: 0,
    watches: 0,
    events: 0,
    bookmarks: 0,
    expired: 0,
    silences: 0,
    failures: 0,
    handlerErrors: 0,
  };
  /** Resolves when the first list is in the cache; never rejects. */
  readonly synced: Promise<void>;
  readonly #client: KubeClient;
  readonly #options: InformerOptions<T>;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #store: Store<T>;
  readonly #handlers = new Set<Handler<T>>();
  readonly #label: string;
  #markSynced: () => void = () => undefined;
  #hasSynced = false;
  #running: Promise<void> | undefined;
  #lastSign: number;
  #version: string | undefined;
  #fruitless = 0;
  #badAnswers = 0;
  #failing: "list" | "watch" = "list";
  #silentInARow = 0;

  constructor(client: KubeClient, type: ResourceType<T>, options: InformerOptions<T> = {}) {
    this.#client = client;
    this.type = type;
    this.#options = options;
    this.#clock = options.clock ?? realClock;
    this.#logger = options.logger ?? silentLogger;
    this.#store = new Store(this.#guarded(options.indexes ?? {}));
    this.#label = resourceText(type);
    this.#lastSign = this.#clock.monotonic();
    this.synced = new Promise((resolve) => {
      this.#markSynced = resolve;
    });
  }

  /** From the cache; the object is shared: do not change it. */
  get(key: ObjectKey): T | undefined {
    return this.#store.get(key);
  }

  list(): T[] {
    return this.#store.list();
  }

  /** @throws when no such index was given to the constructor */
  byIndex(index: string, value: string): T[] {
    return this.#store.byIndex(index, value);
  }

  get hasSynced(): boolean {
    return this.#hasSynced;
  }

  /** Since the server last gave a sign of life (list, event, bookmark); ms. */
  lastEventAgeMs(): number {
    return this.#clock.monotonic() - this.#lastSign;
  }

  /**
   * Tells of every change from now on, and at once of what is in the cache already. A handler that throws is logged and
   * counted; the others and the informer go on. Returns what ends it.
   */
  onChange(handler: Handler<T>): () => void {
    this.#handlers.add(handler);
    for (const now of this.#store.list()) this.#tell(handler, { key: keyOf(now), now });
    return () => void this.#handlers.delete(handler);
  }

  /** Begins, until the signal aborts. Again: nothing happens. */
  start(signal: AbortSignal): void {
    if (this.#running) return;
    const hide = exposeInformer(() => ({ resource: this.#label, size: this.#store.size, ageMs: this.lastEventAgeMs() }));
    this.#running = this.#run(signal).finally(hide);
  }

  /** Resolves when a started informer has ended. */
  async stopped(): Promise<void> {
    await this.#running;
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      let askedMs = 0;
      const doing = this.#version === undefined ? "list" : "watch";
      try {
        if (this.#version === undefined) await this.#list(signal);
        else await this.#watch(this.#version, signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#failing = doing;
        this.#noteFailure(error);
        askedMs = error instanceof ApiError ? (error.retryAfterMs ?? 0) : 0;
      }
      if (this.#fruitless > 0) await sleep(this.#clock, Math.max(askedMs, this.#pause()), signal);
    }
  }

  #pause(): number {
    return backoffMs(this.#fruitless, { baseMs: 100, capMs: 5_000, ...this.#options.backoff }, this.#options.random);
  }

  /** Decides from what went wrong whether to resume or to list anew. */
  #noteFailure(error: unknown): void {
    this.#fruitless++;
    if (error instanceof ApiError && error.isExpired) {
      this.counters.expired++;
      this.#version = undefined;
      this.#logger.info({ resource: this.#label }, "the place to resume from is gone, listing anew");
      return;
    }
    this.counters.failures++;
    // While no answer comes at all the place is as good as before: a server that was away is not to be listed by everybody.
    if (!(error instanceof TransportError) && ++this.#badAnswers % BAD_ANSWERS === 0) this.#version = undefined;
    this.#logger.warn({ resource: this.#label, attempt: this.#fruitless, error: errorText(error) }, "list or watch failed");
  }

  async #list(signal: AbortSignal): Promise<void> {
    this.counters.lists++;
    let objects: T[] = [];
    try {
      this.#version = await this.#client.listPages(
        this.type,
        this.#options,
        (page) => {
          for (const item of page.items) objects.push(this.#trim(item));
        },
        {
          signal,
          restart: () => {
            objects = [];
          },
          ...(this.#options.pageSize === undefined ? {} : { pageSize: this.#options.pageSize }),
        },
      );
    } catch (error) {
      informerMetrics.lists.inc({ resource: this.#label, result: "error" });
      throw error;
    }
    informerMetrics.lists.inc({ resource: this.#label, result: "success" });
    this.#sign();
    // Failed lists are over; failed watches are not: a server that lists but cannot watch must not be listed in a tight loop.
    if (this.#failing === "list") this.#fruitless = 0;
    const changes = this.#store.replace(objects);
    this.#hasSynced = true;
    this.#tellAll(changes);
    this.#markSynced();
  }

  async #watch(resourceVersion: string, signal: AbortSignal): Promise<void> {
    this.counters.watches++;
    const began = this.#clock.monotonic();
    const watch = new AbortController();
    const stop = (): void => watch.abort(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
    const watchdog = new Watchdog(this.#clock, this.#options.silenceMs ?? 100_000, () => watch.abort(new Error("silent")));
    let end = "server";
    try {
      const random = this.#options.random ?? Math.random;
      for await (const event of watchEvents(this.#client, this.type, {
        ...this.#options,
        resourceVersion,
        // Spread, so that a server's watches do not all end at once.
        timeoutSeconds: 300 + Math.floor(300 * random()),
        deadlineMs: Math.min(30_000, this.#options.silenceMs ?? 100_000),
        signal: watch.signal,
      })) {
        watchdog.feed();
        this.#take(event);
      }
      // A watch that ends as soon as it began, with nothing in it, is as good as one that failed.
      if (watchdog.barked) throw new Error("the watch said nothing");
      if (this.#clock.monotonic() - began < 1_000 && watchdog.fed === 0 && !signal.aborted)
        throw new Error("the watch ended at once");
    } catch (error) {
      end = error instanceof ApiError && error.isExpired ? "expired" : "broken";
      if (!watchdog.barked) throw error;
      end = "silent";
      this.#noteSilence();
    } finally {
      watchdog.stop();
      if (this.#clock.monotonic() - began > LIVED_MS) this.#fruitless = 0;
      signal.removeEventListener("abort", stop);
      informerMetrics.watches.inc({ resource: this.#label, end: signal.aborted ? "stopped" : end });
    }
  }

  /** Silence is taken for the connection's fault: resume. Many in a row may be the server's: list anew. */
  #noteSilence(): void {
    this.counters.silences++;
    this.#silentInARow++;
    // Not a warning: of a resource that nobody changes it is the ordinary thing.
    this.#logger.info(
      { resource: this.#label, ageMs: Math.round(this.lastEventAgeMs()) },
      "the watch said nothing, opening another",
    );
    if (this.#silentInARow % SILENCES === 0) this.#version = undefined;
  }

  #take(event: WatchEvent<T>): void {
    this.#sign();
    this.#fruitless = 0;
    this.#badAnswers = 0;
    this.#silentInARow = 0;
    informerMetrics.events.inc({ resource: this.#label, type: event.type });
    if (event.type === "BOOKMARK") {
      this.counters.bookmarks++;
      if (event.resourceVersion !== "") this.#version = event.resourceVersion;
      return;
    }
    this.counters.events++;
    const object = this.#trim(event.object);
    this.#tellAll(event.type === "DELETED" ? this.#store.remove(keyOf(object), object) : this.#store.set(object));
    this.#version = object.metadata.resourceVersion;
  }

  #trim(object: T): T {
    delete (object.metadata as { managedFields?: unknown }).managedFields;
    const { transform } = this.#options;
    return transform ? this.#safely("transform", keyOf(object), () => transform(object), object) : object;
  }

  /** One object that an index function cannot bear must not keep all others out of the cache. */
  #guarded(indexes: IndexFunctions<T>): IndexFunctions<T> {
    const guard =
      (name: string, valuesOf: (object: T) => string[]) =>
      (object: T): string[] =>
        this.#safely(`index ${name}`, keyOf(object), () => valuesOf(object), []);
    return Object.fromEntries(Object.entries(indexes).map(([name, valuesOf]) => [name, guard(name, valuesOf)]));
  }

  /** Runs what the informer's owner gave us; when it throws, that is counted and logged, and `otherwise` is the result. */
  #safely<R>(what: string, key: ObjectKey, run: () => R, otherwise: R): R {
    try {
      return run();
    } catch (error) {
      this.counters.handlerErrors++;
      informerMetrics.handlerErrors.inc({ resource: this.#label });
      this.#logger.error({ resource: this.#label, key, error: errorText(error) }, `${what} threw`);
      return otherwise;
    }
  }

  #sign(): void {
    this.#lastSign = this.#clock.monotonic();
  }

  #tellAll(changes: readonly Change<T>[]): void {
    for (const change of changes) for (const handler of this.#handlers) this.#tell(handler, change);
  }

  #tell(handler: Handler<T>, change: Change<T>): void {
    this.#safely("a change handler", change.key, () => handler(change), undefined);
  }
}
