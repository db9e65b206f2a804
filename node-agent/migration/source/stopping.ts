/** That the guest may be stopped, and by post-copy whatever is left of it to copy: what QEMU is told of that, until it has taken it. */
import type { MoveNote } from "../notes.ts";
import type { SideParts } from "../parts.ts";
import type { Underway } from "../underway.ts";

export interface StoppingParts extends Pick<SideParts, "moves" | "checkpoint"> {
  underway: Underway;
  note: () => MoveNote;
  writeNote: (change: (note: MoveNote) => MoveNote) => Promise<void>;
  maxPauseMs: () => number;
  /** Whether policy wants it to go on at the target before all its memory is there. */
  wantsPostCopy: () => boolean;
  /** From now on it may stand still at any moment. */
  allowed: () => void;
}

export class Stopping {
  readonly #parts: StoppingParts;
  #told = false;
  #toldOfPostCopy = false;

  constructor(parts: StoppingParts) {
    this.#parts = parts;
  }

  /** To be repeated as long as the guest runs here and may be stopped: policy may come to want post-copy, and QEMU may not have answered. */
  go(): void {
    const { underway, wantsPostCopy } = this.#parts;
    if (!this.#told) underway.start("allowing the pause", () => this.#allow());
    else if (wantsPostCopy() && !this.#toldOfPostCopy) underway.start("going on by post-copy", () => this.#postCopy());
  }

  /** The guest runs on here; the next time is another one. */
  forget(): void {
    this.#told = this.#toldOfPostCopy = false;
  }

  async #allow(): Promise<void> {
    const { moves, checkpoint, allowed, wantsPostCopy, note, maxPauseMs } = this.#parts;
    await checkpoint("source", "allow-pause");
    allowed();
    if (wantsPostCopy() || note().postCopy === true) await this.#postCopy();
    await moves.allowPause(note().instance.uid, maxPauseMs());
    this.#told = true;
  }

  /** QEMU may complete without it all the same, if what is left fits by then: whoever reads the note asks QEMU which it was. */
  async #postCopy(): Promise<void> {
    const { moves, note, writeNote } = this.#parts;
    await writeNote((before) => ({ ...before, postCopy: true }));
    await moves.postCopy(note().instance.uid);
    this.#toldOfPostCopy = true;
  }
}
