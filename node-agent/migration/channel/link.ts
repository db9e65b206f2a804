/** One connection between the two agents of a move: typed messages in order, and a sign of life every second. */
import { WebSocket } from "ws";
import type { z } from "zod";
import type { Clock, Logger } from "../../../kube/index.ts";
import { errorText } from "../../errors.ts";

/** A sign of life is sent this often, ms. */
const BEAT_MS = 1_000;
/** Silent for so long is dead, ms: QEMU itself does not notice a dead link for tens of seconds. */
const DEAD_MS = 5_000;
/** A tick that came so much too late says that this process stood still, and nothing about the other end. */
const STOOD_STILL_MS = 2_000;

export interface LinkOptions<In> {
  socket: WebSocket;
  incoming: z.ZodType<In>;
  clock: Clock;
  log: Logger;
}

/** `Out` is sent, `In` is taken. What arrives before `onMessage` is called waits. */
export class Link<Out extends { type: string }, In extends { type: string }> {
  readonly #socket: WebSocket;
  readonly #options: LinkOptions<In>;
  readonly #closeListeners = new Set<(why: string) => void>();
  #onMessage: ((message: In) => void) | undefined;
  #waiting: In[] = [];
  #heardAt: number;
  #tickAt: number;
  #timer: object | undefined;
  #why: string | undefined;

  constructor(options: LinkOptions<In>) {
    const { socket, clock } = options;
    this.#socket = socket;
    this.#options = options;
    this.#heardAt = clock.monotonic();
    this.#tickAt = this.#heardAt;
    socket.on("message", (data, isBinary) => this.#take(isBinary ? undefined : text(data)));
    for (const sign of ["ping", "pong"] as const) socket.on(sign, () => this.#heard());
    socket.on("error", (error) => this.#end(`the connection failed: ${errorText(error)}`));
    socket.on("close", (code, reason) => this.#end(closeWords(code, reason.toString())));
    this.#beat();
  }

  /** Whether it is open, as far as this end knows. */
  get open(): boolean {
    return this.#why === undefined;
  }

  /** Sends at once. What cannot be sent is lost: the record and the notes are what counts. */
  send(message: Out): void {
    if (this.open && this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  /** To be called once. */
  onMessage(fn: (message: In) => void): void {
    this.#onMessage = fn;
    for (const message of this.#waiting.splice(0)) fn(message);
  }

  /** Calls back once, with words; at once if it is closed already. */
  onClose(fn: (why: string) => void): void {
    if (this.#why === undefined) this.#closeListeners.add(fn);
    else fn(this.#why);
  }

  /** Ends it from here; the other end hears why, if it can. */
  close(why: string): void {
    if (!this.open) return;
    this.#socket.close(1000, why.slice(0, 120));
    this.#end(why);
  }

  #beat(): void {
    const { clock } = this.#options;
    this.#timer = clock.setTimeout(() => {
      const now = clock.monotonic();
      if (now - this.#tickAt > BEAT_MS + STOOD_STILL_MS) this.#heardAt = now;
      this.#tickAt = now;
      const silent = now - this.#heardAt;
      if (silent >= DEAD_MS) {
        this.#end(`the other agent has been silent for ${Math.round(silent / 1000)} s`);
        return;
      }
      if (this.#socket.readyState === WebSocket.OPEN) this.#socket.ping();
      this.#beat();
    }, BEAT_MS);
  }

  #heard(): void {
    this.#heardAt = this.#options.clock.monotonic();
  }

  #take(data: string | undefined): void {
    if (!this.open) return;
    this.#heard();
    const message = parse(this.#options.incoming, data);
    if (message === undefined) {
      this.#socket.close(1008, "not understood");
      this.#end("the other agent said something that is not understood; do both run the same version?");
    } else if (this.#onMessage === undefined) this.#waiting.push(message);
    else this.#onMessage(message);
  }

  #end(why: string): void {
    if (this.#why !== undefined) return;
    this.#why = why;
    this.#waiting = [];
    this.#options.clock.clearTimeout(this.#timer);
    this.#options.log.debug({ why }, "the connection of a move has ended");
    // A peer that does not answer the close would keep the socket for half a minute.
    if (this.#socket.readyState !== WebSocket.CLOSING) this.#socket.terminate();
    for (const fn of this.#closeListeners) fn(why);
    this.#closeListeners.clear();
  }
}

const text = (data: WebSocket.RawData): string =>
  Array.isArray(data) ? Buffer.concat(data).toString() : Buffer.from(data as Buffer).toString();

function parse<In>(schema: z.ZodType<In>, data: string | undefined): In | undefined {
  if (data === undefined) return undefined;
  try {
    return schema.safeParse(JSON.parse(data)).data;
  } catch {
    return undefined; // no JSON: not understood either
  }
}

const closeWords = (code: number, reason: string): string =>
  reason === "" ? `the other agent ended the connection (${code})` : `the other agent ended the connection: ${reason}`;
