/** Drover's rows by their owner, kept up from the replica: finding an owner's rows costs as much as it has. */
import { asMap, type Replica, type Row, type RowChange } from "../../ovsdb/index.ts";
import type { ActualRow } from "./diff.ts";
import { MARK, type Owner, type RowRef, type Table } from "./rows.ts";

const mark = (row: Row | undefined, key: string): string => asMap(row?.["external_ids"]).get(key) ?? "";

export class RowIndex {
  readonly #byOwner = new Map<Owner, Map<string, ActualRow>>();

  /** `onOwner` is called once per change and owner, with the "<namespace>/<name>" that its rows bear. */
  constructor(replica: Pick<Replica, "onChange">, onOwner: (owner: Owner, name: string) => void) {
    replica.onChange((changes) => {
      const touched = new Map<Owner, string>();
      for (const change of changes) this.#apply(change, touched);
      for (const [owner, name] of touched) onOwner(owner, name);
    });
  }

  of(owner: Owner): ActualRow[] {
    return [...(this.#byOwner.get(owner)?.values() ?? [])];
  }

  /** The uuid of a row; of several with the same role the one that diffRows keeps. */
  find(ref: RowRef): string | undefined {
    return this.of(ref.owner)
      .filter(({ row }) => mark(row, MARK.role) === ref.role)
      .map((one) => one.uuid)
      .sort()[0];
  }

  /** Every owner, with the name that its rows bear. */
  owners(): [owner: Owner, name: string][] {
    return [...this.#byOwner.keys()].map((owner) => [owner, this.nameOf(owner)]);
  }

  /** "<namespace>/<name>" of an owner; "" when it has no rows. */
  nameOf(owner: Owner): string {
    const [first] = this.#byOwner.get(owner)?.values() ?? [];
    return mark(first?.row, MARK.name);
  }

  #apply({ table, uuid, old, now }: RowChange, touched: Map<Owner, string>): void {
    const [before, after] = [mark(old, MARK.owner), mark(now, MARK.owner)];
    if (old) {
      const rows = this.#byOwner.get(before);
      rows?.delete(uuid);
      if (rows?.size === 0) this.#byOwner.delete(before);
      touched.set(before, mark(old, MARK.name));
    }
    if (now) {
      const rows = this.#byOwner.get(after) ?? new Map<string, ActualRow>();
      this.#byOwner.set(after, rows.set(uuid, { table: table as Table, uuid, row: now }));
      touched.set(after, mark(now, MARK.name));
    }
  }
}
