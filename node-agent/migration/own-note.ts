/** The note of a move, in the hands of the side that it speaks of. */
import type { MoveNote, MoveNotes } from "./notes.ts";

export class OwnNote {
  readonly #notes: Pick<MoveNotes, "write">;
  #now: MoveNote;
  #last: Promise<unknown> = Promise.resolve();

  constructor(notes: Pick<MoveNotes, "write">, note: MoveNote) {
    this.#notes = notes;
    this.#now = note;
  }

  /** As it lies on the disk. */
  get now(): MoveNote {
    return this.#now;
  }

  /** Resolves when it lies on the disk. One change after the other: one that began from an older note would take another's promise back. */
  change(change: (note: MoveNote) => MoveNote): Promise<void> {
    const changed = this.#after(this.#last, change);
    this.#last = changed;
    return changed;
  }

  async #after(last: Promise<unknown>, change: (note: MoveNote) => MoveNote): Promise<void> {
    await Promise.allSettled([last]);
    const next = change(this.#now);
    await this.#notes.write(next);
    this.#now = next;
  }
}
