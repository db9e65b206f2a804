/** The newest record that this agent knows of each Migration: from its cache, its own writes, or proof that outlives the object. */
import type { Handover } from "../../crds/migration.ts";
import { keyText, type ObjectKey } from "../../kube/index.ts";
import type { MigrationRef } from "./parts.ts";
import { newest } from "./record.ts";

/**
 * Outlives the side that read or wrote it: the cache may be behind our own last write when that side is over, and a move that is settled
 * would be taken up again by what stood there before.
 */
export class Records {
  readonly #known = new Map<string, { uid: string; record: Handover }>();

  get(ref: MigrationRef): Handover | undefined {
    const entry = this.#known.get(keyText(ref));
    return entry?.uid === ref.uid ? entry.record : undefined;
  }

  /** Takes note of a reading; gives the newest of all. */
  put(ref: MigrationRef, record: Handover | undefined): Handover | undefined {
    const now = newest(this.get(ref), record);
    if (now !== undefined) this.#known.set(keyText(ref), { uid: ref.uid, record: now });
    return now;
  }

  /** Its Migration is gone. */
  forget(key: ObjectKey): void {
    this.#known.delete(keyText(key));
  }
}
