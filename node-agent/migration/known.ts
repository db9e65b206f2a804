/** What a side of a move knows of it beside its QEMU: its note, the Migration as last seen, the record as last read. */
import type { Handover, HandoverState, Migration } from "../../crds/migration.ts";
import { stateOf, type RecordWrite } from "./handover/types.ts";
import type { MoveNote } from "./notes.ts";
import { OwnNote } from "./own-note.ts";
import type { MigrationRef, SideParts } from "./parts.ts";
import { writeRecord } from "./record.ts";
import type { Records } from "./records.ts";

export class Known {
  readonly #client: SideParts["client"];
  readonly #records: Records;
  readonly #own: OwnNote;
  #migration: Migration;

  constructor(parts: Pick<SideParts, "client" | "notes" | "records">, note: MoveNote, migration: Migration) {
    this.#client = parts.client;
    this.#records = parts.records;
    this.#own = new OwnNote(parts.notes, note);
    this.#migration = migration;
    this.news(migration);
  }

  /** As it is on the disk. */
  get note(): MoveNote {
    return this.#own.now;
  }

  get migration(): Migration {
    return this.#migration;
  }

  get record(): Handover | undefined {
    return this.#records.get(this.ref);
  }

  /** What the record says, if it speaks of this attempt. */
  get state(): HandoverState | undefined {
    const { record } = this;
    return record?.attempt === this.note.attempt ? record.state : undefined;
  }

  get isGivenUp(): boolean {
    return stateOf(this.record, this.note.attempt) === "Source";
  }

  get isDone(): boolean {
    return this.state === "Done";
  }

  /** Nothing is decided yet. */
  get isOpen(): boolean {
    return this.state === "Copying" || this.state === "Handover";
  }

  get ref(): MigrationRef {
    return this.note.migration;
  }

  /** The Migration as it is now, or proof that its record says so (`record`) although the object is gone. */
  news(migration: Migration | undefined, record?: Handover): void {
    if (migration !== undefined) this.#migration = migration;
    this.#records.put(this.ref, record ?? migration?.status?.handover);
  }

  /** As OwnNote.change. */
  writeNote(change: (note: MoveNote) => MoveNote): Promise<void> {
    return this.#own.change(change);
  }

  /** As OwnNote.stage. */
  stageNote(change: (note: MoveNote) => MoveNote): Promise<() => Promise<void>> {
    return this.#own.stage(change);
  }

  async write(action: RecordWrite): Promise<void> {
    this.#records.put(this.ref, await writeRecord(this.#client, this.ref, action));
  }
}
