/** What one agent says for both sides of a guest that gets another QEMU. */
import type { MigrationSource, MigrationTarget, Migration } from "../../../crds/migration.ts";
import type { UpdateDriver } from "../../instance/update.ts";
import type { MoveNote } from "../notes.ts";
import type { SideParts } from "../parts.ts";
import { pauseWords } from "../source/words.ts";

export interface UpdateWordsParts extends Pick<SideParts, "reporter" | "metrics"> {
  updates: Pick<UpdateDriver, "marks">;
  note: () => MoveNote;
  migration: () => Migration;
}

export class UpdateWords {
  readonly #parts: UpdateWordsParts;

  constructor(parts: UpdateWordsParts) {
    this.#parts = parts;
  }

  source(words: Partial<MigrationSource> & Pick<MigrationSource, "state">): void {
    const { reporter, note, migration } = this.#parts;
    const { attempt, migration: ref } = note();
    const last = reporter.last(ref, "source");
    const said = last?.role === "source" ? last.words : migration().status?.source;
    const before = said?.attempt === attempt ? said : {};
    reporter.say(ref, { role: "source", words: { ...before, ...words, attempt } });
  }

  target(words: Partial<MigrationTarget> & Pick<MigrationTarget, "state">): void {
    const { attempt, migration: ref } = this.#parts.note();
    this.#parts.reporter.say(ref, { role: "target", words: { ...words, attempt } });
  }

  /** While it is held nothing is written: the guest stands still. */
  hold(held: boolean): void {
    const { reporter, note } = this.#parts;
    for (const side of ["source", "target"] as const) reporter.hold(note().migration, side, held);
  }

  /** The guest runs in its new QEMU; how long it stood still, where this agent saw both ends of that. */
  ran(): void {
    const { updates, note, metrics } = this.#parts;
    const marks = updates.marks(note().instance.uid).map(({ name, at }) => ({ mark: name, at }));
    const at = (name: string): number | undefined => marks.find(({ mark }) => mark === name)?.at;
    const [stopped, resumed] = [at("stopped"), at("resumed")];
    const pause = stopped === undefined || resumed === undefined ? undefined : pauseWords(stopped, resumed, marks);
    if (pause !== undefined) metrics.paused(pause.pauseMs);
    this.source({ state: "Completed", ...pause });
    this.target({ state: "Running" });
  }
}
