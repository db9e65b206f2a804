/** One connection to a QEMU monitor: greeting, capabilities, requests and replies, events, the end. */
import { connect as connectSocket } from "node:net";
import type { Duplex } from "node:stream";
import { realClock, type Clock, type TimerHandle } from "../../../../kube/clock.ts";
import { QmpClosed, QmpError, QmpTimeout } from "./errors.ts";
import { encode, isObject, LineDecoder, type JsonObject } from "./wire.ts";

export interface QmpEvent {
  name: string;
  data: JsonObject;
  /** QEMU's clock, ms since 1970. */
  at: number;
}

export interface QmpOptions {
  /** For each command that says nothing else. Default: 5 s. */
  deadlineMs?: number;
  /** For the greeting after connecting, and for each step of the handshake. Default: as for commands. */
  greetingMs?: number;
  clock?: Clock;
}

export interface ExecuteOptions {
  deadlineMs?: number;
  /** Carried out at once, even when the main loop is stuck; only some commands can (yank, migrate-pause, exec-oob). */
  outOfBand?: boolean;
}

interface Waiting {
  command: string;
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
  timer: TimerHandle;
}

const DEADLINE_MS = 5_000;

/** Speaks QMP on a stream. After the end (`closed`) every command fails with QmpClosed. */
export class QmpSession {
  /** Resolves when the connection has ended, with the reason; never rejects. */
  readonly closed: Promise<QmpClosed>;
  readonly #stream: Duplex;
  readonly #clock: Clock;
  readonly #deadlineMs: number;
  readonly #greetingMs: number;
  readonly #decoder = new LineDecoder();
  readonly #waiting = new Map<number, Waiting>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  #greeted: ((greeting: JsonObject) => void) | undefined;
  #end: QmpClosed | undefined;
  #setClosed: (reason: QmpClosed) => void = () => undefined;
  #serial = 0;
  #outOfBand = false;

  private constructor(stream: Duplex, options: QmpOptions) {
    this.#stream = stream;
    this.#clock = options.clock ?? realClock;
    this.#deadlineMs = options.deadlineMs ?? DEADLINE_MS;
    this.#greetingMs = options.greetingMs ?? this.#deadlineMs;
    this.closed = new Promise((resolve) => {
      this.#setClosed = resolve;
    });
    stream.on("data", (chunk: Buffer) => this.#read(chunk));
    stream.on("error", (cause) => this.#finish(new QmpClosed(`the connection to QEMU broke: ${cause.message}`, { cause })));
    stream.on("close", () => this.#finish(new QmpClosed("QEMU closed the connection")));
    stream.on("end", () => this.#finish(new QmpClosed("QEMU closed the connection")));
  }

  /** Connects to a monitor's socket. Throws QmpClosed when nobody listens there, QmpTimeout when nobody answers. */
  static async connect(path: string, options: QmpOptions = {}): Promise<QmpSession> {
    return QmpSession.over(connectSocket(path), options);
  }

  /** Does the handshake on a stream that leads to a monitor; ends the stream when that fails. */
  static async over(stream: Duplex, options: QmpOptions = {}): Promise<QmpSession> {
    const session = new QmpSession(stream, options);
    try {
      const greeting = await session.#greeting();
      const offered = isObject(greeting["QMP"]) ? greeting["QMP"]["capabilities"] : undefined;
      const outOfBand = Array.isArray(offered) && offered.includes("oob");
      await session.execute("qmp_capabilities", outOfBand ? { enable: ["oob"] } : {}, { deadlineMs: session.#greetingMs });
      session.#outOfBand = outOfBand;
      return session;
    } catch (error) {
      session.close();
      throw error;
    }
  }

  /**
   * Runs a command and gives its `return`. Throws QmpError with QEMU's words, QmpTimeout, or QmpClosed. After QmpTimeout and
   * QmpClosed it is not known whether the command was carried out.
   */
  execute(command: string, args: JsonObject = {}, options: ExecuteOptions = {}): Promise<unknown> {
    const { deadlineMs = this.#deadlineMs, outOfBand = false } = options;
    if (this.#end) return Promise.reject(new QmpClosed(`${command}: ${this.#end.message}`, { cause: this.#end }));
    if (outOfBand && !this.#outOfBand) return Promise.reject(new Error(`${command}: this QEMU takes nothing out of band`));
    const id = ++this.#serial;
    return new Promise((resolve, reject) => {
      const timer = this.#clock.setTimeout(() => {
        this.#waiting.delete(id);
        reject(new QmpTimeout(command, deadlineMs));
      }, deadlineMs);
      this.#waiting.set(id, { command, resolve, reject, timer });
      const request = { [outOfBand ? "exec-oob" : "execute"]: command, arguments: args, id };
      this.#stream.write(encode(request));
    });
  }

  /** Calls back for each event, until the returned function is called or the connection ends. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  get isClosed(): boolean {
    return this.#end !== undefined;
  }

  /** Ends the connection; QEMU runs on. May be repeated. */
  close(): void {
    this.#finish(new QmpClosed("the connection was closed here"));
  }

  #greeting(): Promise<JsonObject> {
    return new Promise((resolve, reject) => {
      const timer = this.#clock.setTimeout(() => reject(new QmpTimeout("greeting", this.#greetingMs)), this.#greetingMs);
      const stopTimer = (): void => this.#clock.clearTimeout(timer);
      this.#greeted = (greeting) => {
        stopTimer();
        resolve(greeting);
      };
      void this.closed.then((reason) => {
        stopTimer();
        reject(reason);
      });
    });
  }

  #read(chunk: Buffer): void {
    let messages: JsonObject[];
    try {
      messages = this.#decoder.push(chunk);
    } catch (cause) {
      this.#finish(new QmpClosed("QEMU's monitor sent what is not QMP", { cause }));
      return;
    }
    for (const message of messages) this.#dispatch(message);
  }

  #dispatch(message: JsonObject): void {
    if ("QMP" in message) this.#greeted?.(message);
    else if (typeof message["event"] === "string") this.#emit(message["event"], message);
    else this.#reply(message);
  }

  #reply(message: JsonObject): void {
    const id = message["id"];
    const waiting = typeof id === "number" ? this.#waiting.get(id) : undefined;
    // a late reply to a command that was given up; or an error without an id, which answers a request that could not be read
    if (typeof id !== "number" || !waiting) return;
    this.#waiting.delete(id);
    this.#clock.clearTimeout(waiting.timer);
    const error = message["error"];
    if (isObject(error)) {
      waiting.reject(new QmpError(waiting.command, String(error["class"]), String(error["desc"])));
    } else {
      waiting.resolve(message["return"]);
    }
  }

  #emit(name: string, message: JsonObject): void {
    const { timestamp, data } = message;
    const time = isObject(timestamp) ? Number(timestamp["seconds"]) * 1000 + Number(timestamp["microseconds"]) / 1000 : 0;
    for (const listener of this.#listeners) listener({ name, data: isObject(data) ? data : {}, at: time });
  }

  #finish(reason: QmpClosed): void {
    if (this.#end) return;
    this.#end = reason;
    for (const { command, reject, timer } of this.#waiting.values()) {
      this.#clock.clearTimeout(timer);
      reject(new QmpClosed(`${command}: ${reason.message}`, { cause: reason }));
    }
    this.#waiting.clear();
    this.#stream.destroy();
    this.#setClosed(reason);
  }
}
