/** One connection's life: request and reply, notifications, echo, cancel, probe, close (JSON-RPC 1.0 as RFC 7047 §4 uses it). */
import { type Clock, realClock, type TimerHandle } from "../kube/clock.ts";
import type { Duplex } from "node:stream";
import { DisconnectedError, errorText, OvsdbError, OvsdbTimeoutError } from "./errors.ts";
import { encodeMessage, JsonSplitter } from "./wire.ts";

export interface SessionOptions {
  clock?: Clock;
  /** Silence of the peer after which it is asked for a sign of life; as long again without one closes. 0: never. */
  inactivityProbeMs?: number;
  /** Deadline of a request that names none. */
  requestTimeoutMs?: number;
  /** Called for each notification, in the order of arrival, between replies as they came. */
  onNotification?: (method: string, params: readonly unknown[]) => void;
}

export interface RequestOptions {
  timeoutMs?: number | undefined;
  signal?: AbortSignal | undefined;
  /**
   * Called with the result while the message is being read, before any message behind it: a monitor's first snapshot must be
   * in place before the updates that may have come in the same read.
   */
  onResult?: (result: unknown) => void;
}

interface Pending {
  method: string;
  resolve: (result: unknown) => void;
  reject: (error: Error) => void;
  onResult: ((result: unknown) => void) | undefined;
  clean: () => void;
}

interface Incoming {
  id?: unknown;
  method?: unknown;
  params?: unknown;
  result?: unknown;
  error?: unknown;
}

const DEFAULT_PROBE_MS = 10_000;
const DEFAULT_TIMEOUT_MS = 10_000;

/** Speaks JSON-RPC over a connected stream and owns it: the stream is destroyed when the session ends. */
export class Session {
  readonly #stream: Duplex;
  readonly #clock: Clock;
  readonly #probeMs: number;
  readonly #timeoutMs: number;
  readonly #onNotification: (method: string, params: readonly unknown[]) => void;
  readonly #splitter = new JsonSplitter();
  readonly #pending = new Map<number, Pending>();
  readonly #closed = Promise.withResolvers<Error>();
  #nextId = 1;
  #ended: Error | undefined;
  #probeTimer: TimerHandle | undefined;
  #lastHeardAt: number;

  constructor(stream: Duplex, opts: SessionOptions = {}) {
    this.#stream = stream;
    this.#clock = opts.clock ?? realClock;
    this.#probeMs = opts.inactivityProbeMs ?? DEFAULT_PROBE_MS;
    this.#timeoutMs = opts.requestTimeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#onNotification = opts.onNotification ?? (() => undefined);
    this.#lastHeardAt = this.#clock.monotonic();
    stream.on("data", (chunk: Buffer) => this.#receive(chunk));
    stream.on("error", (error: Error) => this.close(error));
    stream.on("end", () => this.close(new Error("the server closed the connection")));
    stream.on("close", () => this.close(new Error("the connection was closed")));
    this.#armProbe(this.#probeMs);
  }

  /** Resolves, never rejects, with the reason once the session has ended. */
  get closed(): Promise<Error> {
    return this.#closed.promise;
  }

  get open(): boolean {
    return this.#ended === undefined;
  }

  /**
   * Sends a request and resolves with its result. Rejects with OvsdbError (the server refused), OvsdbTimeoutError (deadline;
   * a cancel was sent), DisconnectedError, or the signal's reason. Nothing is sent twice.
   */
  request(method: string, params: readonly unknown[], opts: RequestOptions = {}): Promise<unknown> {
    if (this.#ended) {
      return Promise.reject(
        new DisconnectedError(`not connected to the OVSDB server: ${this.#ended.message}`, {
          maybeApplied: false,
          cause: this.#ended,
        }),
      );
    }
    if (opts.signal?.aborted) return Promise.reject(asError(opts.signal.reason));
    const id = this.#nextId;
    this.#nextId += 1;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const timeoutMs = opts.timeoutMs ?? this.#timeoutMs;
    const giveUp = (error: Error): void => {
      if (!this.#pending.has(id)) return;
      this.#settle(id)?.reject(error);
      this.notify("cancel", [id]);
    };
    const timer = this.#clock.setTimeout(
      () =>
        giveUp(
          new OvsdbTimeoutError(
            `the OVSDB server did not answer ${method} within ${timeoutMs} ms; it may have been done all the same`,
          ),
        ),
      timeoutMs,
    );
    const onAbort = (): void => giveUp(asError(opts.signal?.reason));
    opts.signal?.addEventListener("abort", onAbort, { once: true });
    const clean = (): void => {
      this.#clock.clearTimeout(timer);
      opts.signal?.removeEventListener("abort", onAbort);
    };
    this.#pending.set(id, { method, resolve, reject, onResult: opts.onResult, clean });
    this.#send({ method, params, id });
    return promise;
  }

  /** Sends a notification; nothing comes back. Does nothing on an ended session. */
  notify(method: string, params: readonly unknown[]): void {
    if (!this.#ended) this.#send({ method, params, id: null });
  }

  /** Ends the session: pending requests reject with DisconnectedError. May be repeated; the first reason stays. */
  close(reason: Error = new Error("closed by us")): void {
    if (this.#ended) return;
    this.#ended = reason;
    this.#clock.clearTimeout(this.#probeTimer);
    this.#stream.destroy();
    for (const [id, { method }] of this.#pending) {
      this.#settle(id)?.reject(
        new DisconnectedError(`the connection to the OVSDB server broke before it answered ${method}: ${reason.message}`, {
          maybeApplied: true,
          cause: reason,
        }),
      );
    }
    this.#closed.resolve(reason);
  }

  #settle(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    pending?.clean();
    return pending;
  }

  #send(message: unknown): void {
    this.#stream.write(encodeMessage(message));
  }

  #receive(chunk: Buffer): void {
    this.#lastHeardAt = this.#clock.monotonic();
    try {
      for (const message of this.#splitter.push(chunk)) if (!this.#ended) this.#dispatch(message as Incoming);
    } catch (error) {
      this.close(new Error(`the OVSDB server's answer made no sense: ${errorText(error)}`, { cause: error }));
    }
  }

  #dispatch(message: Incoming): void {
    if (typeof message.method === "string") {
      const params = Array.isArray(message.params) ? (message.params as unknown[]) : [];
      if (message.id === null || message.id === undefined) this.#onNotification(message.method, params);
      else if (message.method === "echo") this.#send({ result: params, error: null, id: message.id });
      else this.#send({ result: null, error: "unknown method", id: message.id });
      return;
    }
    if (typeof message.id !== "number") return;
    const pending = this.#settle(message.id);
    if (!pending) return; // a reply to what was given up
    if (message.error === null || message.error === undefined) {
      try {
        pending.onResult?.(message.result);
      } catch (error) {
        pending.reject(asError(error));
        throw error;
      }
      pending.resolve(message.result);
    } else pending.reject(new OvsdbError(`the OVSDB server refused ${pending.method}`, readError(message.error)));
  }

  #armProbe(ms: number): void {
    if (this.#probeMs > 0) this.#probeTimer = this.#clock.setTimeout(() => this.#probe(), ms);
  }

  #probe(): void {
    const silentMs = this.#clock.monotonic() - this.#lastHeardAt;
    if (silentMs < this.#probeMs) {
      this.#armProbe(this.#probeMs - silentMs);
      return;
    }
    this.request("echo", [], { timeoutMs: this.#probeMs }).then(
      () => this.#armProbe(this.#probeMs),
      (error: unknown) => {
        // Anything heard is a sign of life: a server busy sending us a large snapshot answers its echo only after it.
        if (this.#clock.monotonic() - this.#lastHeardAt < this.#probeMs) this.#armProbe(this.#probeMs);
        else this.close(new Error(`no sign of life for ${this.#clock.monotonic() - this.#lastHeardAt} ms: ${errorText(error)}`));
      },
    );
  }
}

const asError = (reason: unknown): Error => (reason instanceof Error ? reason : new Error(String(reason)));

/** The error of a reply: an object with error and details, or (as ovsdb-server does for some) plain text. */
export const readError = (raw: unknown): { error: string; details?: string } => {
  if (typeof raw !== "object" || raw === null) return { error: String(raw) };
  const { error, details } = raw as { error?: unknown; details?: unknown };
  return {
    error: typeof error === "string" ? error : JSON.stringify(raw),
    ...(typeof details === "string" ? { details } : {}),
  };
};
