/** What QEMU said of a move last, for as long as nothing can have changed it. */
export class Seen<State extends string> {
  readonly #ask: () => Promise<State>;
  #state: State | undefined;
  /** Counts what may have changed it: an answer that is older says nothing. */
  #changes = 0;

  constructor(ask: () => Promise<State>) {
    this.#ask = ask;
  }

  /** Undefined: it would have to be asked. */
  get state(): State | undefined {
    return this.#state;
  }

  set(state: State): void {
    this.#changes += 1;
    this.#state = state;
  }

  forget(): void {
    this.#changes += 1;
    this.#state = undefined;
  }

  /** As it is known, or as QEMU says. Throws when that does not answer. */
  async look(): Promise<State> {
    for (;;) {
      if (this.#state !== undefined) return this.#state;
      const changes = this.#changes;
      const found = await this.#ask();
      if (changes === this.#changes) this.#state = found;
    }
  }
}
