/** The making of the guest's place at the target, and what of it the source is told: first that copying may begin, then that the guest may come. */
import type { Migration, MigrationTarget } from "../../../crds/migration.ts";
import type { Offer } from "../../instance/move.ts";
import type { TargetMessage } from "../channel/messages.ts";
import type { Known } from "../known.ts";
import type { MoveNote, Why } from "../notes.ts";
import { whyOf, type SideParts } from "../parts.ts";
import type { Alarm } from "../underway.ts";
import type { Missing } from "./place.ts";

export interface MakingParts extends Pick<SideParts, "clock" | "checkpoint"> {
  /** Where the source's agent finds this one: host:port. */
  endpoint: () => string;
  /** Makes the guest's place and a QEMU that waits. May be repeated. */
  prepare: (
    note: MoveNote,
    migration: Migration,
    progress: { note: (change: (note: MoveNote) => MoveNote) => Promise<void>; say: (message: string) => void },
    signal: AbortSignal,
  ) => Promise<Offer>;
  /** What must be there before the guest itself may come; undefined: all is. Whoever changes it calls `news`. */
  missing: (note: MoveNote, migration: Migration) => Missing | undefined;
}

export interface Telling {
  say: (words: Partial<MigrationTarget> & Pick<MigrationTarget, "state">) => void;
  /** To the source's agent, if it is connected; it hears the offer again with each connection. */
  tell: (message: TargetMessage) => void;
}

export class Making {
  readonly #parts: MakingParts;
  readonly #known: Known;
  readonly #telling: Telling;
  readonly #stop = new AbortController();
  #state: "no" | "yes" | "done" = "no";
  #offer: Offer | undefined;
  #offeredAt: number | undefined;
  /** The guest itself may come: its ports are installed, its claim's holder runs. */
  #settled = false;

  constructor(parts: MakingParts, known: Known, telling: Telling) {
    this.#parts = parts;
    this.#known = known;
    this.#telling = telling;
  }

  /** When the source was told that copying may begin; undefined: not yet. */
  get offeredAt(): number | undefined {
    return this.#offeredAt;
  }

  get begun(): boolean {
    return this.#state !== "no";
  }

  /** A QEMU is being made, or will be: one that is not there has not died. */
  get coming(): boolean {
    if (this.#state === "yes") return true;
    return this.#state === "no" && this.#known.state === "Copying" && this.#known.note.receiving !== true;
  }

  /** Once. Gives why it failed, unless it was to stop. */
  async run(signal: AbortSignal): Promise<Why | undefined> {
    const { checkpoint, prepare, endpoint, clock } = this.#parts;
    const { say } = this.#telling;
    const both = AbortSignal.any([signal, this.#stop.signal]);
    this.#state = "yes";
    try {
      await checkpoint("target", "prepare");
      const progress = {
        note: (change: (note: MoveNote) => MoveNote) => this.#known.writeNote(change),
        say: (message: string) => say({ state: "Preparing", endpoint: endpoint(), message }),
      };
      // The source's agent connects while the place is made.
      say({ state: "Preparing", endpoint: endpoint() });
      const offer = await prepare(this.#known.note, this.#known.migration, progress, both);
      await checkpoint("target", "ready");
      this.#offer = offer;
      this.#offeredAt = clock.monotonic();
      say({ state: "Ready", endpoint: endpoint() });
      this.sayOffer();
      return undefined;
    } catch (error) {
      return both.aborted ? undefined : whyOf(error, "TargetFailed");
    } finally {
      this.#state = "done";
    }
  }

  stop(): void {
    this.#stop.abort();
  }

  /** Looks whether the guest itself may come; tells it once. Gives why it never will. */
  settle(alarm: Alarm): Why | undefined {
    const { missing, endpoint, clock } = this.#parts;
    const { note, migration, isOpen } = this.#known;
    if (this.#offeredAt === undefined || this.#settled || note.mark !== "none" || !isOpen) return undefined;
    const lacks = missing(note, migration);
    if (lacks === undefined) {
      this.#settled = true;
      this.#telling.say({ state: "Ready", endpoint: endpoint() });
      this.sayOffer();
      return undefined;
    }
    const left = this.#offeredAt + lacks.forMs - clock.monotonic();
    if (left <= 0) return { reason: lacks.reason, message: lacks.late, retryable: true };
    this.#telling.say({ state: "Ready", endpoint: endpoint(), message: lacks.message });
    alarm.in(left);
    return undefined;
  }

  /** Where to send, once that is known. */
  sayOffer(): void {
    if (this.#offer === undefined) return;
    const { secret } = this.#known.note;
    this.#telling.tell({ type: "offer", ...this.#offer, ...(secret === undefined ? {} : { secret }), settled: this.#settled });
  }
}
