/** The agent's connections to the monitors of the guests that run: one each, opened when first needed, kept until it ends. */
import { join } from "node:path";
import type { Clock } from "../../../kube/clock.ts";
import type { NodePaths } from "../../node.ts";
import { keepBounded } from "./bounded-file.ts";
import { HANDED } from "./command-line.ts";
import { stderrFile } from "./launcher.ts";
import { QmpTimeout } from "./qmp/errors.ts";
import { QmpSession, type QmpEvent } from "./qmp/session.ts";

/** Kept of a guest's console, twice: what is being written, and what was cut off last. */
const CONSOLE_BYTES = 1024 * 1024;
const STDERR_BYTES = 128 * 1024;
/** Another client (an agent that is just ending) may hold the first monitor; the second one answers at once. */
const FIRST_MONITOR_MS = 500;

export interface MonitorsOptions {
  paths: NodePaths;
  clock: Clock;
  onEvent: (instanceUid: string, event: QmpEvent) => void;
  /** The connection has ended; the process most likely too. */
  onClosed: (instanceUid: string) => void;
  onError: (instanceUid: string, error: unknown) => void;
  /** Called before each connection: sees to it that the instance's names are those of the QEMU that runs it. */
  beforeConnect?: (instanceUid: string) => Promise<void>;
}

export class Monitors {
  readonly #options: MonitorsOptions;
  readonly #sessions = new Map<string, Promise<QmpSession>>();
  #closed = false;

  constructor(options: MonitorsOptions) {
    this.#options = options;
  }

  /** The connection to an instance's monitor; one that is being made is shared. Throws when nobody answers in time. */
  session(instanceUid: string, deadlineMs: number): Promise<QmpSession> {
    const existing = this.#sessions.get(instanceUid);
    if (existing) return existing;
    const made = this.#connect(instanceUid, deadlineMs);
    this.#sessions.set(instanceUid, made);
    made.then(
      (session) => this.#attach(instanceUid, session, made),
      () => this.#forget(instanceUid, made),
    );
    return made;
  }

  /** From here on this is the connection to the instance's monitor: another QEMU runs it. The one before ends unheard. */
  adopt(instanceUid: string, session: QmpSession): void {
    const before = this.#sessions.get(instanceUid);
    const made = Promise.resolve(session);
    this.#sessions.set(instanceUid, made);
    this.#attach(instanceUid, session, made);
    void before?.then(
      (one) => one.close(),
      () => undefined,
    );
  }

  /** Lets go of all guests; they run on. */
  async close(): Promise<void> {
    this.#closed = true;
    const all = await Promise.allSettled(this.#sessions.values());
    for (const one of all) if (one.status === "fulfilled") one.value.close();
    this.#sessions.clear();
  }

  async #connect(instanceUid: string, deadlineMs: number): Promise<QmpSession> {
    const { paths, beforeConnect } = this.#options;
    await beforeConnect?.(instanceUid);
    return this.#greet(paths.instanceVm(instanceUid), deadlineMs);
  }

  #attach(instanceUid: string, session: QmpSession, made: Promise<QmpSession>): void {
    const { paths, clock, onEvent, onError } = this.#options;
    const directory = paths.instanceVm(instanceUid);
    const onFileError = (error: unknown): void => onError(instanceUid, error);
    const loose = [
      session.onEvent((event) => onEvent(instanceUid, event)),
      keepBounded(join(directory, HANDED.console.name), CONSOLE_BYTES, { clock, onError: onFileError }),
      keepBounded(stderrFile(paths, instanceUid), STDERR_BYTES, { clock, onError: onFileError }),
    ];
    void session.closed.then(() => {
      for (const stop of loose) stop();
      if (this.#sessions.get(instanceUid) !== made) return; // another one has taken its place
      this.#sessions.delete(instanceUid);
      if (!this.#closed) this.#options.onClosed(instanceUid);
    });
  }

  async #greet(directory: string, deadlineMs: number): Promise<QmpSession> {
    const { clock } = this.#options;
    try {
      return await QmpSession.connect(join(directory, HANDED.qmp.name), {
        clock,
        greetingMs: Math.min(deadlineMs, FIRST_MONITOR_MS),
      });
    } catch (error) {
      if (!(error instanceof QmpTimeout)) throw error;
      return QmpSession.connect(join(directory, HANDED.qmp2.name), { clock, greetingMs: deadlineMs });
    }
  }

  #forget(instanceUid: string, made: Promise<QmpSession>): void {
    if (this.#sessions.get(instanceUid) === made) this.#sessions.delete(instanceUid);
  }
}
