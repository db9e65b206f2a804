/**
 * Events (events.k8s.io/v1) about objects, for people. Recording one costs the caller nothing and never fails. The same event
 * said again is one Event object with a series that counts, written at most once a minute.
 */
import { randomBytes } from "node:crypto";
import type { KubeEvent } from "./builtin.ts";
import type { KubeClient } from "./client.ts";
import { realClock, sleep, type Clock, type TimerHandle } from "./clock.ts";
import { ApiError, errorText } from "./errors.ts";
import { silentLogger, type Logger } from "./logger.ts";
import { eventMetrics } from "./metrics.ts";
import { resources } from "./resources.ts";
import type { KubeObject } from "./types.ts";

export interface EventRecorderOptions {
  /** Who reports, such as `drover.dev/operator`; at most 128 characters. */
  controller: string;
  /** Which of them: the pod's or the node's name; at most 128 characters. */
  instance: string;
  clock?: Clock;
  logger?: Logger;
  /** Makes names of Events; default 8 random bytes. */
  suffix?: () => string;
}

/** As much of KubeClient as recording needs. */
type EventClient = Pick<KubeClient, "create" | "patchMerge">;

interface Series {
  event: KubeEvent;
  count: number;
  written: number;
  lastSeen: number;
  timer: TimerHandle | undefined;
  lostAt?: number;
}

/** A series that was not heard of for so long is over; the next one is a new Event. The figure of Kubernetes' own recorder. */
const SERIES_ENDS_MS = 6 * 60_000;
const SERIES_WRITE_MS = 60_000;
/** Different events about one object: so many at once, then one per so long. The figures of Kubernetes' own recorder. */
const BURST = 25;
const REFILL_MS = 5 * 60_000;
/** What is over is kept for that much longer at most: looking at all of it has its price. */
const FORGET_EVERY_MS = 60_000;
/** Waiting to be sent; beyond it the newest are dropped: a recorder must not fill the memory while the API server is away. */
const QUEUE = 1_000;

export class EventRecorder {
  readonly #client: EventClient;
  readonly #options: EventRecorderOptions;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #series = new Map<string, Series>();
  readonly #allowance = new Map<string, { tokens: number; at: number }>();
  readonly #queue: (() => Promise<void>)[] = [];
  #sending: Promise<void> | undefined;
  #forgotAt = 0;

  constructor(client: EventClient, options: EventRecorderOptions) {
    this.#client = client;
    this.#options = options;
    this.#clock = options.clock ?? realClock;
    this.#logger = options.logger ?? silentLogger;
  }

  /** How many series, and objects that something was told of, it remembers: for tests. */
  get remembered(): { series: number; objects: number } {
    return { series: this.#series.size, objects: this.#allowance.size };
  }

  /**
   * Says that something happened to an object.
   * @param reason why, one CamelCase word of at most 128 characters
   * @param action what was done or tried, one CamelCase word
   * @param note a sentence; cut at 1024 bytes
   */
  event(about: KubeObject, type: "Normal" | "Warning", reason: string, action: string, note: string): void {
    try {
      this.#record(about, type, reason, action, note);
    } catch (error) {
      eventMetrics.inc({ result: "failed" });
      this.#logger.warn({ reason, error: errorText(error) }, "an event could not be recorded");
    }
  }

  /** Sends what waits, counts of series too; gives up after `deadlineMs`. To be called before the process ends. */
  async flush(deadlineMs: number): Promise<void> {
    for (const series of this.#series.values()) {
      this.#clock.clearTimeout(series.timer);
      series.timer = undefined;
      if (series.count > series.written) this.#enqueue(() => this.#writeSeries(series));
    }
    const waiting = new AbortController();
    await Promise.race([this.#sending ?? Promise.resolve(), sleep(this.#clock, deadlineMs, waiting.signal)]);
    waiting.abort();
  }

  #record(about: KubeObject, type: "Normal" | "Warning", reason: string, action: string, note: string): void {
    const now = this.#clock.monotonic();
    this.#forget(now);
    const text = cut(note, 1024);
    const object = about.metadata.uid ?? `${about.kind}/${about.metadata.namespace ?? ""}/${about.metadata.name}`;
    const key = [object, type, reason, action, text].join("\0");
    const known = this.#series.get(key);
    if (known && !isOver(known, now)) {
      known.count++;
      known.lastSeen = now;
      eventMetrics.inc({ result: "series" });
      known.timer ??= this.#clock.setTimeout(() => {
        known.timer = undefined;
        this.#enqueue(() => this.#writeSeries(known));
      }, SERIES_WRITE_MS);
      return;
    }
    if (!this.#allowed(object, now)) {
      eventMetrics.inc({ result: "throttled" });
      return;
    }
    const series: Series = {
      event: this.#build(about, type, reason, action, text),
      count: 1,
      written: 0,
      lastSeen: now,
      timer: undefined,
    };
    this.#series.set(key, series);
    this.#enqueue(() => this.#writeFirst(series));
  }

  #build(about: KubeObject, type: "Normal" | "Warning", reason: string, action: string, note: string): KubeEvent {
    const { namespace, name, uid, resourceVersion } = about.metadata;
    const suffix = this.#options.suffix?.() ?? randomBytes(8).toString("hex");
    return {
      apiVersion: "events.k8s.io/v1",
      kind: "Event",
      // Events about cluster-scoped objects live in `default`, where kubectl looks for them.
      metadata: { namespace: namespace ?? "default", name: `${name.slice(0, 200)}.${suffix}` },
      eventTime: microTime(this.#clock.now()),
      reportingController: cut(this.#options.controller, 128),
      reportingInstance: cut(this.#options.instance, 128),
      type,
      reason: cut(reason, 128),
      action: cut(action, 128),
      note,
      regarding: {
        apiVersion: about.apiVersion,
        kind: about.kind,
        name,
        ...(namespace === undefined ? {} : { namespace }),
        ...(uid === undefined ? {} : { uid }),
        ...(resourceVersion === undefined ? {} : { resourceVersion }),
      },
    };
  }

  /** Token bucket per object. */
  #allowed(object: string, now: number): boolean {
    const bucket = this.#allowance.get(object) ?? { tokens: BURST, at: now };
    bucket.tokens = Math.min(BURST, bucket.tokens + (now - bucket.at) / REFILL_MS);
    bucket.at = now;
    this.#allowance.set(object, bucket);
    if (bucket.tokens < 1) return false;
    bucket.tokens -= 1;
    return true;
  }

  /** Drops series that are over and buckets that are full again. Called with every event, so it looks once in a while. */
  #forget(now: number): void {
    if (now - this.#forgotAt < FORGET_EVERY_MS) return;
    this.#forgotAt = now;
    for (const [key, series] of this.#series) if (isOver(series, now)) this.#series.delete(key);
    for (const [key, { tokens, at }] of this.#allowance)
      if (tokens + (now - at) / REFILL_MS >= BURST) this.#allowance.delete(key);
  }

  #enqueue(send: () => Promise<void>): void {
    if (this.#queue.length >= QUEUE) {
      eventMetrics.inc({ result: "dropped" });
      return;
    }
    this.#queue.push(send);
    this.#sending ??= this.#sendAll().finally(() => {
      this.#sending = undefined;
    });
  }

  /** One at a time: events must not take the connections of the work they tell of. Never rejects. */
  async #sendAll(): Promise<void> {
    for (let send = this.#queue.shift(); send; send = this.#queue.shift()) {
      try {
        await send();
      } catch (error) {
        eventMetrics.inc({ result: "failed" });
        this.#logger.warn({ error: errorText(error) }, "an event could not be written");
      }
    }
  }

  async #writeFirst(series: Series): Promise<void> {
    await this.#client.create(resources.events, series.event);
    series.written = 1;
    eventMetrics.inc({ result: "created" });
  }

  async #writeSeries(series: Series): Promise<void> {
    const { count } = series;
    if (count <= series.written) return;
    const value = { count, lastObservedTime: microTime(this.#clock.now()) };
    const { namespace = "default", name } = series.event.metadata;
    try {
      await this.#client.patchMerge(resources.events, { namespace, name }, { series: value });
    } catch (error) {
      if (!(error instanceof ApiError && error.isNotFound)) throw error;
      // The server forgets events after an hour; a series that goes on is written anew.
      await this.#client.create(resources.events, { ...series.event, series: value });
    }
    series.written = count;
    eventMetrics.inc({ result: "updated" });
  }
}

const isOver = ({ lastSeen, timer }: Series, now: number): boolean => now - lastSeen >= SERIES_ENDS_MS && timer === undefined;

const microTime = (ms: number): string => new Date(ms).toISOString().replace("Z", "000Z");

/** At most so many bytes of UTF-8, without half a character at the end. */
const cut = (text: string, bytes: number): string => {
  const whole = Buffer.from(text);
  if (whole.length <= bytes) return text;
  return `${whole
    .subarray(0, bytes - 3)
    .toString("utf8")
    .replace(/\uFFFD+$/, "")}...`.slice(0, bytes);
};
