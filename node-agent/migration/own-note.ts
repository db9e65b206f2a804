/** The note of a move, in the hands of the side that it speaks of. */
import type { MoveNote, MoveNotes } from "./notes.ts";

export class OwnNote {
  readonly #notes: Pick<MoveNotes, "write" | "stage">;
  #now: MoveNote;
  #last: Promise<unknown> = Promise.resolve();

  constructor(notes: Pick<MoveNotes, "write" | "stage">, note: MoveNote) {
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

  /**
   * Makes a change ready that must be quick once it is made: the returned function resolves when the agent's own end would not undo it.
   * It rejects if another change came in between.
   */
  async stage(change: (note: MoveNote) => MoveNote): Promise<() => Promise<void>> {
    await Promise.allSettled([this.#last]);
    const before = this.#now;
    const next = change(before);
    const put = await this.#notes.stage(next);
    return () => {
      const changed = this.#now === before ? put() : Promise.reject(new Error("the note has changed since it was made ready"));
      const done = changed.then(() => void (this.#now = next));
      this.#last = done;
      return done;
    };
  }

  async #after(last: Promise<unknown>, change: (note: MoveNote) => MoveNote): Promise<void> {
    await Promise.allSettled([last]);
    const next = change(this.#now);
    await this.#notes.write(next);
    this.#now = next;
  }
}
