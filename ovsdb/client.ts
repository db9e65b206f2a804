/** An OVSDB client that stays connected (RFC 7047; ovsdb-server(7)). */
import { type Clock, realClock } from "../kube/clock.ts";
import { errorText as wholeText } from "../kube/errors.ts";
import { Backoff } from "./backoff.ts";
import { Connection } from "./connection.ts";
import { DisconnectedError, errorText } from "./errors.ts";
import { encodeOperation, type Operation, type OperationResult } from "./operations.ts";
import { type Remote, remoteText, type TlsFiles } from "./remote.ts";
import { type MonitorSpec, Replica } from "./replica.ts";
import type { DatabaseSchema } from "./schema.ts";
import { readTransactReply } from "./transact.ts";

/** The part of pino's Logger that is used. */
export interface ClientLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface OvsdbClientOptions {
  /** Where to connect; a function is asked again before each round of attempts. */
  remotes: readonly Remote[] | (() => readonly Remote[]);
  database: string;
  /** Of a clustered database, use the leader only: reads are then never stale and writes take one hop less. Default: false. */
  leaderOnly?: boolean;
  /** For ssl: remotes; a function is asked again at each attempt, so that renewed certificates are taken. */
  tls?: TlsFiles | (() => TlsFiles | Promise<TlsFiles>);
  log: ClientLog;
  clock?: Clock;
  random?: () => number;
  /** Silence after which the server is asked for a sign of life; as long again closes. Default 10,000; 0: never. */
  inactivityProbeMs?: number;
  /** Deadline of a connection attempt and of a request that names none. Default 10,000. */
  timeoutMs?: number;
}

export interface TransactOptions {
  signal?: AbortSignal;
  timeoutMs?: number;
}

type StateListener = (connected: boolean, why?: Error) => void;

const DEFAULT_TIMEOUT_MS = 10_000;
/** A connection that lived this long shows that its server is sound: back-off starts anew. */
const SOUND_AFTER_MS = 5_000;

export class OvsdbClient {
  readonly #opts: OvsdbClientOptions;
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #backoff: Backoff;
  readonly #replicas = new Set<Replica>();
  readonly #stateListeners = new Set<StateListener>();
  /** What was last said of each server: told again only when it changes, or after a time in which the server was sound. */
  readonly #told = new Map<string, string>();
  readonly #connectedOnce = Promise.withResolvers<void>();
  #connection: Connection | undefined;
  #remote: Remote | undefined;
  #lastError: Error | undefined;
  #started = false;
  #wake: () => void = () => undefined;

  constructor(opts: OvsdbClientOptions) {
    this.#opts = opts;
    this.#clock = opts.clock ?? realClock;
    this.#timeoutMs = opts.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#backoff = new Backoff(opts.random ? { random: opts.random } : {});
    this.#connectedOnce.promise.catch(() => undefined); // nobody need be waiting
  }

  /** Whether transactions can be sent now. */
  get connected(): boolean {
    return this.#connection !== undefined;
  }

  /** Resolves at the first connection; rejects if the client is stopped before. */
  get connectedOnce(): Promise<void> {
    return this.#connectedOnce.promise;
  }

  /** Why there is no connection; undefined while there is one, or before the first attempt ended. */
  get lastError(): Error | undefined {
    return this.#lastError;
  }

  /** Who we are connected to, as OVS writes it. */
  get remote(): string | undefined {
    return this.#connection && this.#remote ? remoteText(this.#remote) : undefined;
  }

  /** The database's schema as the server has it; undefined while disconnected. */
  get schema(): DatabaseSchema | undefined {
    return this.#connection?.schema;
  }

  /** Connects, and again whenever the connection is lost, until the signal aborts. Once only. */
  start(signal: AbortSignal): void {
    if (this.#started) throw new Error("this OVSDB client was started before");
    this.#started = true;
    this.#run(signal).then(
      () => this.#stop(new Error("the OVSDB client was stopped")),
      (error: unknown) => {
        this.#opts.log.error({ err: error }, "the OVSDB client failed; this is a bug");
        this.#stop(error instanceof Error ? error : new Error(errorText(error)));
      },
    );
  }

  /** Tries now instead of after the back-off, for who knows that something changed (a new endpoint). */
  retryNow(): void {
    this.#wake();
  }

  /** Calls `fn` whenever the connection comes or goes. Returns how to stop. */
  onState(fn: StateListener): () => void {
    this.#stateListeners.add(fn);
    return () => this.#stateListeners.delete(fn);
  }

  /**
   * Runs the operations as one transaction: all or nothing. What it changed is in the replicas when it resolves.
   * Rejects with OvsdbError (an operation or the commit was refused; nothing was done), DisconnectedError (`maybeApplied` tells
   * whether it had been sent) or OvsdbTimeoutError. Nothing is sent twice: repeating is the caller's, who knows what it means.
   */
  async transact(operations: readonly Operation[], opts: TransactOptions = {}): Promise<OperationResult[]> {
    const connection = this.#connection;
    if (!connection) {
      const why = this.#lastError ? `: ${this.#lastError.message}` : "";
      throw new DisconnectedError(`not connected to the OVSDB server of ${this.#opts.database}${why}`, {
        maybeApplied: false,
        cause: this.#lastError,
      });
    }
    const result = await connection.session.request("transact", [this.#opts.database, ...operations.map(encodeOperation)], {
      timeoutMs: opts.timeoutMs ?? this.#timeoutMs,
      signal: opts.signal,
    });
    return readTransactReply(operations, result);
  }

  /** A live copy of tables, kept across reconnects. May be called before or after start. */
  monitor(tables: MonitorSpec): Replica {
    const replica = new Replica(tables, (error) =>
      this.#opts.log.error({ err: error }, "a listener of an OVSDB replica threw; this is a bug"),
    );
    this.#replicas.add(replica);
    if (this.#connection) this.#startReplica(this.#connection, replica);
    return replica;
  }

  async #run(signal: AbortSignal): Promise<void> {
    let turn = Math.floor((this.#opts.random ?? Math.random)() * 1000);
    while (!signal.aborted) {
      const remotes = typeof this.#opts.remotes === "function" ? this.#opts.remotes() : this.#opts.remotes;
      const known = new Set(remotes.map(remoteText));
      for (const remote of this.#told.keys()) if (!known.has(remote)) this.#told.delete(remote);
      if (remotes.length === 0) this.#lastError = new Error(`no address of an OVSDB server for ${this.#opts.database} is known`);
      for (let tried = 0; tried < remotes.length && !signal.aborted; tried += 1) {
        const remote = remotes[turn % remotes.length];
        turn += 1;
        if (remote && (await this.#live(remote, signal))) {
          // It worked and then ended: the same server first, and a fresh look at the list.
          turn -= 1;
          break;
        }
      }
      await this.#pause(this.#backoff.next(), signal);
    }
  }

  /** Connects and stays until the connection ends; false when it never came to be. */
  async #live(remote: Remote, signal: AbortSignal): Promise<boolean> {
    const { log, database } = this.#opts;
    let connection: Connection;
    try {
      const tls = typeof this.#opts.tls === "function" ? await this.#opts.tls() : this.#opts.tls;
      connection = await Connection.open({
        remote,
        database,
        leaderOnly: this.#opts.leaderOnly ?? false,
        tls,
        clock: this.#clock,
        inactivityProbeMs: this.#opts.inactivityProbeMs ?? 10_000,
        timeoutMs: this.#timeoutMs,
        signal,
      });
    } catch (error) {
      const cause = error instanceof Error ? error : new Error(errorText(error));
      if (!signal.aborted) this.#warn(remote, cause, "cannot use this OVSDB server; trying again");
      this.#lastError = cause;
      return false;
    }
    const since = this.#clock.monotonic();
    this.#connection = connection;
    this.#remote = remote;
    this.#lastError = undefined;
    log.info({ database, remote: remoteText(remote) }, "connected to the OVSDB server");
    for (const replica of this.#replicas) this.#startReplica(connection, replica);
    this.#connectedOnce.resolve();
    this.#tell(true);
    const why = await connection.session.closed;
    this.#connection = undefined;
    this.#lastError = why;
    for (const replica of this.#replicas) replica.markLost();
    if (this.#clock.monotonic() - since >= SOUND_AFTER_MS) {
      this.#backoff.reset();
      this.#told.delete(remoteText(remote));
    }
    if (!signal.aborted) this.#warn(remote, why, "the connection to the OVSDB server ended");
    this.#tell(false, why);
    return true;
  }

  /** One line, without a stack: who is to blame is on the other side. */
  #warn(remote: Remote, why: Error, message: string): void {
    const { log, database } = this.#opts;
    const error = wholeText(why);
    const place = remoteText(remote);
    if (this.#told.get(place) === error) return;
    this.#told.set(place, error);
    log.warn({ database, remote: place, error }, message);
  }

  #startReplica(connection: Connection, replica: Replica): void {
    connection.monitor(replica).catch((error: unknown) => {
      // Without its replicas a connection is of no use: begin anew, with back-off.
      connection.session.close(new Error(`cannot monitor: ${errorText(error)}`, { cause: error }));
    });
  }

  #pause(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const done = (): void => {
        this.#clock.clearTimeout(timer);
        signal.removeEventListener("abort", done);
        this.#wake = () => undefined;
        resolve();
      };
      const timer = this.#clock.setTimeout(done, ms);
      signal.addEventListener("abort", done, { once: true });
      this.#wake = done;
    });
  }

  #stop(why: Error): void {
    this.#connectedOnce.reject(why);
    for (const replica of this.#replicas) replica.markLost(why);
  }

  #tell(connected: boolean, why?: Error): void {
    for (const fn of this.#stateListeners) {
      try {
        fn(connected, why);
      } catch (error) {
        this.#opts.log.error({ err: error }, "a listener of an OVSDB client threw; this is a bug");
      }
    }
  }
}
