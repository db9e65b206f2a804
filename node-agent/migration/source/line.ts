/** The source's end of the agents' connection: when it counts as lost, and what must be said once for each connection. */
import type { Migration } from "../../../crds/migration.ts";
import { callTarget } from "../channel/client.ts";
import type { SourceMessage, TargetMessage } from "../channel/messages.ts";
import type { MoveNote } from "../notes.ts";
import type { SideParts } from "../parts.ts";
import type { Alarm } from "../underway.ts";
import { Caller } from "./caller.ts";

/** How long the connection may be away while the guest runs: the target's agent may be starting anew. */
const AWAY_MS = 30_000;
/** The same while the guest stands still. */
const AWAY_HELD_MS = 1_000;
/** `go` was sent, and nothing comes back: what the connection says of itself does not count any more. */
const UNANSWERED_MS = 2_000;

export interface LineParts extends Pick<SideParts, "identity" | "checkpoint" | "clock" | "log"> {
  note: () => MoveNote;
  migration: () => Migration;
  hear: (message: TargetMessage) => void;
  /** The connection stands, or has ended. */
  changed: () => void;
}

export class Line {
  readonly #parts: LineParts;
  #caller: Caller | undefined;
  #goAt: number | undefined;
  #goBy: unknown;
  /** The connection by which it was said that the rest of the memory has left. */
  #restSaid: unknown;

  constructor(parts: LineParts) {
    this.#parts = parts;
  }

  /** Calls the target's agent from here on. */
  call(): Caller {
    const { identity, clock, log, note, migration, hear, changed } = this.#parts;
    const caller = (this.#caller ??= new Caller({
      call: async (signal) => {
        const { target, targetNode } = migration().status ?? {};
        const { attempt, migration: of } = note();
        const endpoint = target?.attempt === attempt ? target.endpoint : undefined;
        if (endpoint === undefined || targetNode === undefined) throw new Error("the target has not said where its agent is");
        const own = await identity.ready(signal);
        return callTarget({ endpoint, migrationUid: of.uid, attempt, targetNode, identity: own, clock, log, signal });
      },
      onMessage: hear,
      onChange: changed,
      clock,
      log,
    }));
    caller.begin();
    return caller;
  }

  /** The connection by which `go` was sent last. */
  get goneBy(): unknown {
    return this.#goBy;
  }

  get open(): boolean {
    return this.#caller?.open === true;
  }

  /** Why the agents do not hear each other; undefined: they do, or never had to. */
  get trouble(): string | undefined {
    return this.#caller === undefined || this.#caller.open ? undefined : this.#caller.trouble;
  }

  /** Whether the target's agent is to be reckoned with; `alarm` rings when that may change by time alone. */
  isUp({ still, ran }: { still: boolean; ran: boolean }, alarm: Alarm): boolean {
    const caller = this.#caller;
    // Nothing has been done that needs it.
    if (caller === undefined) return !still || this.call() !== undefined;
    if (this.#goAt !== undefined && !ran) {
      const left = this.#goAt + UNANSWERED_MS - this.#parts.clock.monotonic();
      if (left <= 0) return false;
      alarm.in(left);
    }
    const left = (still ? AWAY_HELD_MS : AWAY_MS) - caller.downMs();
    if (caller.open || left > 0) {
      if (!caller.open) alarm.in(left);
      return true;
    }
    return false;
  }

  /** Once for each connection; `first` is called when it has been sent for the first time. */
  async sendGo(first: () => void): Promise<void> {
    const { clock, checkpoint, note } = this.#parts;
    const now = clock.monotonic();
    if (this.#goAt === undefined) await checkpoint("source", "go");
    const { attempt, postCopy } = note();
    const caller = this.call();
    const { connection } = caller;
    if (this.#goAt !== undefined && this.#goBy === connection) return;
    if (!caller.send({ type: "go", attempt, postCopy: postCopy === true })) return;
    if (this.#goAt === undefined) first();
    this.#goAt ??= now;
    this.#goBy = connection;
  }

  /** Post-copy: all of the memory has left, or never will. Once for each connection; false: it was said by this one. */
  sendRest(sent: boolean): boolean {
    const caller = this.call();
    const { connection } = caller;
    if (this.#restSaid === connection) return false;
    if (caller.send({ type: "rest", sent })) this.#restSaid = connection;
    return true;
  }

  /** What need not arrive. */
  tell(message: SourceMessage): void {
    this.#caller?.send(message);
  }

  async close(): Promise<void> {
    await this.#caller?.close("this agent ends; another one follows");
  }
}
