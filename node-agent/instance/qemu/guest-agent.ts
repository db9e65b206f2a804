/**
 * The guest agents inside guests, each over its own socket. Whatever answers there is the guest's: believed in nothing but its answers' form.
 *
 * Nobody hangs up while an answer is due. QEMU's guest agent writes it again and again until it is rid of it, and where nobody is connected that
 * takes a processor of the guest whole (ga_channel_write_all of qga/channel-posix.c goes on at EAGAIN without a wait). So a question that
 * is given up leaves its connection open, for the next one to use.
 */
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { realClock, type Clock } from "../../../kube/clock.ts";
import type { NodePaths } from "../../node.ts";
import { HANDED } from "./command-line.ts";
import { Locks } from "./locks.ts";
import { QmpClosed, QmpError, QmpTimeout } from "./qmp/errors.ts";
import { encode, isObject, LineDecoder, type JsonObject } from "./qmp/wire.ts";

/** A guest agent's answers to what we ask are small; so is all that others may have left unread before them. */
const LINE_LIMIT = 64 * 1024;
const UNASKED_LIMIT = 1024 * 1024;

interface Question {
  command: string;
  args: JsonObject;
  deadlineMs: number;
  /** False: success is not answered. */
  answers: boolean;
}

interface Due extends Question {
  /** A number that only this question knows: what comes before it answers others. */
  mark: number;
  synced: boolean;
  /** Nobody waits for it any more. */
  givenUp: boolean;
  resolve: (reply: unknown) => void;
  reject: (error: Error) => void;
}

/** A connection to one guest agent. It ends when nothing is due any more. */
class Line {
  /** It is of no use any more. */
  #isOver = false;
  readonly #socket: Socket;
  readonly #decoder = new LineDecoder(LINE_LIMIT);
  readonly #clock: Clock;
  readonly #onOver: () => void;
  #due: Due | undefined;
  #unasked = 0;
  #error: Error | undefined;

  constructor(socketPath: string, clock: Clock, onOver: () => void) {
    this.#clock = clock;
    this.#onOver = onOver;
    this.#socket = connect(socketPath);
    this.#socket.on("data", (chunk: Buffer) => this.#read(chunk));
    this.#socket.on("error", (error) => {
      this.#error = error;
    });
    this.#socket.on("close", () => this.end(this.#error ?? new QmpClosed("the connection to the guest agent ended")));
  }

  /** One at a time; an earlier one may have been given up. Throws QmpTimeout when nobody answers within the deadline. */
  async ask(question: Question): Promise<unknown> {
    const { command, deadlineMs } = question;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const mark = Math.floor(this.#clock.monotonic() * 1000);
    const due: Due = { ...question, mark, synced: false, givenUp: false, resolve, reject };
    this.#due = due;
    this.#unasked = 0;
    const timer = this.#clock.setTimeout(() => {
      due.givenUp = true;
      reject(new QmpTimeout(`guest agent: ${command}`, deadlineMs));
    }, deadlineMs);
    const sync = encode({ execute: "guest-sync-delimited", arguments: { id: mark } });
    this.#socket.write(Buffer.concat([Buffer.from([0xff]), Buffer.from(sync)]));
    try {
      return await promise;
    } finally {
      this.#clock.clearTimeout(timer);
    }
  }

  end(cause: Error): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#socket.destroy();
    this.#due?.reject(cause);
    this.#due = undefined;
    this.#onOver();
  }

  #read(chunk: Buffer): void {
    this.#unasked += chunk.length;
    try {
      if (this.#unasked > UNASKED_LIMIT) throw new Error(`more than ${UNASKED_LIMIT} bytes that nobody asked for`);
      for (const message of this.#decoder.push(chunk)) this.#take(message);
    } catch (error) {
      this.end(error instanceof Error ? error : new Error(String(error)));
    }
  }

  #take(message: JsonObject): void {
    const due = this.#due;
    if (due === undefined) return;
    if (due.synced) {
      this.#answered(due, message);
    } else if (message["return"] === due.mark) {
      due.synced = true;
      // not later than it was meant
      if (due.givenUp) this.#nothingDue();
      else this.#command(due);
    }
  }

  #command(due: Due): void {
    this.#socket.write(encode({ execute: due.command, arguments: due.args }), () => {
      // an error may follow all the same
      if (!due.answers) due.resolve(undefined);
    });
  }

  #answered(due: Due, reply: JsonObject): void {
    const { command, resolve, reject } = due;
    const error = reply["error"];
    if (isObject(error)) reject(new QmpError(`guest agent: ${command}`, String(error["class"]), String(error["desc"])));
    else resolve(reply["return"]);
    this.#nothingDue();
  }

  #nothingDue(): void {
    this.#due = undefined;
    this.end(new QmpClosed("the guest agent has answered"));
  }
}

export class GuestAgents {
  readonly #paths: NodePaths;
  readonly #clock: Clock;
  readonly #lines = new Map<string, Line>();
  /** The port serves one client at a time, and one question. */
  readonly #turns = new Locks();

  constructor({ paths, clock = realClock }: { paths: NodePaths; clock?: Clock }) {
    this.#paths = paths;
    this.#clock = clock;
  }

  /** Whether a guest agent answers within the deadline. */
  async ping(instanceUid: string, deadlineMs: number): Promise<boolean> {
    try {
      await this.#ask(instanceUid, { command: "guest-ping", args: {}, deadlineMs, answers: true });
      return true;
    } catch {
      // any failure is the answer: nobody there
      return false;
    }
  }

  /** Asks the guest to shut itself down, which is answered only where it fails. Throws when no agent takes the request. */
  async shutdown(instanceUid: string, deadlineMs: number): Promise<void> {
    await this.#ask(instanceUid, { command: "guest-shutdown", args: { mode: "powerdown" }, deadlineMs, answers: false });
  }

  /** Another QEMU runs the guest: whatever is due comes by that one's socket. */
  moved(instanceUid: string): void {
    this.#lines.get(instanceUid)?.end(new QmpClosed("another QEMU runs the guest"));
  }

  /** Lets go of all guests. */
  close(): void {
    for (const line of this.#lines.values()) line.end(new QmpClosed("the agent ends"));
  }

  #ask(instanceUid: string, question: Question): Promise<unknown> {
    return this.#turns.run(instanceUid, () => this.#line(instanceUid).ask(question));
  }

  #line(instanceUid: string): Line {
    const known = this.#lines.get(instanceUid);
    if (known !== undefined) return known;
    const line = new Line(join(this.#paths.instanceVm(instanceUid), HANDED.guestAgent.name), this.#clock, () => {
      if (this.#lines.get(instanceUid) === line) this.#lines.delete(instanceUid);
    });
    this.#lines.set(instanceUid, line);
    return line;
  }
}
