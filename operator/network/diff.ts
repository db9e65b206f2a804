/** Rows as they should be against rows as they are: the operations of one transaction. Pure. */
import {
  asMap,
  asSet,
  byUuid,
  mapOf,
  namedUuid,
  type Operation,
  ops,
  type Row,
  sameValue,
  uuid,
  type Value,
} from "../../ovsdb/index.ts";
import { type DesiredRow, LISTED_TABLES, MARK, type Owner, PARENT_OF, type RowRef, type Table } from "./rows.ts";

/** A row of Drover's as the database has it. */
export interface ActualRow {
  readonly table: Table;
  readonly uuid: string;
  readonly row: Row;
}

export interface DiffInput {
  readonly owner: Owner;
  /** "<namespace>/<name>" of the owner, for people who look at the rows, and to find the object again. */
  readonly name: string;
  readonly scope: string;
  readonly desired: readonly DesiredRow[];
  /** All rows of the owner. */
  readonly actual: readonly ActualRow[];
  /** The uuid of a row of another owner. */
  readonly find: (ref: RowRef) => string | undefined;
}

/** `missing`: a row of another owner that must be there first; there is then nothing to do yet. */
export type Diff = { readonly operations: Operation[] } | { readonly missing: RowRef };

const roleOf = ({ row }: ActualRow): string => asMap(row["external_ids"]).get(MARK.role) ?? "";

const marks = (input: DiffInput, role: string): Record<string, string> => ({
  [MARK.scope]: input.scope,
  [MARK.owner]: input.owner,
  [MARK.role]: role,
  [MARK.name]: input.name,
});

class MissingRow extends Error {
  readonly ref: RowRef;
  constructor(ref: RowRef) {
    super(`row ${ref.role} of ${ref.owner} is not there`);
    this.ref = ref;
  }
}

/** Finds what leads from `actual` to `desired`; no operations when nothing differs. */
export const diffRows = (input: DiffInput): Diff => {
  try {
    return { operations: new Differ(input).run() };
  } catch (error) {
    if (error instanceof MissingRow) return { missing: error.ref };
    throw error;
  }
};

class Differ {
  readonly #input: DiffInput;
  readonly #guards: Operation[] = [];
  readonly #changes: Operation[] = [];
  readonly #kept = new Map<string, ActualRow>();
  readonly #surplus: ActualRow[] = [];

  constructor(input: DiffInput) {
    this.#input = input;
  }

  run(): Operation[] {
    this.#pair();
    for (const one of this.#surplus) this.#remove(one);
    for (const [index, want] of this.#input.desired.entries()) {
      const have = this.#kept.get(want.role);
      if (have) this.#update(want, have);
      else this.#insert(want, index);
    }
    if (this.#changes.length === 0) return [];
    return [...this.#guards, ...this.#changes, ops.comment(`drover: ${this.#input.owner} ${this.#input.name}`)];
  }

  /** One row for each role; what is more, or of another table, goes. */
  #pair(): void {
    const wanted = new Map(this.#input.desired.map((row) => [row.role, row]));
    for (const one of [...this.#input.actual].sort((a, b) => (a.uuid < b.uuid ? -1 : 1))) {
      const role = roleOf(one);
      if (wanted.get(role)?.table === one.table && !this.#kept.has(role)) this.#kept.set(role, one);
      else this.#surplus.push(one);
    }
  }

  /** The reference to a row, be it there already or made by this transaction. */
  #resolve(ref: RowRef): Value {
    const own = ref.owner === this.#input.owner;
    const there = own ? this.#kept.get(ref.role)?.uuid : this.#input.find(ref);
    if (there !== undefined) return uuid(there);
    const index = own ? this.#input.desired.findIndex((row) => row.role === ref.role) : -1;
    if (index < 0) throw new MissingRow(ref);
    return namedUuid(rowName(index));
  }

  #columns(want: DesiredRow): Record<string, Value> {
    const refs = Object.entries(want.refs ?? {}).map(([column, ref]) => [column, this.#resolve(ref)] as const);
    return { ...want.columns, ...Object.fromEntries(refs) };
  }

  #insert(want: DesiredRow, index: number): void {
    const ids = { ...marks(this.#input, want.role), ...this.#listedMark(want) };
    // Two operators at once, or a copy that lags: the row must not be made twice.
    const mark = mapOf({ [MARK.scope]: this.#input.scope, [MARK.owner]: want.owner, [MARK.role]: want.role });
    if (!LISTED_TABLES.has(want.table)) {
      this.#guards.push(ops.wait(want.table, [["external_ids", "includes", mark]], "==", [], { columns: ["external_ids"] }));
    }
    this.#changes.push(ops.insert(want.table, { ...this.#columns(want), external_ids: mapOf(ids) }, rowName(index)));
    this.#list(want, namedUuid(rowName(index)));
  }

  #update(want: DesiredRow, have: ActualRow): void {
    const differing = Object.entries(this.#columns(want)).filter(([column, value]) => !sameValue(value, have.row[column] ?? []));
    if (differing.length > 0) {
      this.#mustExist(have.table, have.uuid);
      this.#changes.push(ops.update(have.table, byUuid(have.uuid), Object.fromEntries(differing)));
    }
    const ids = asMap(have.row["external_ids"]);
    const wrong = Object.entries({ ...marks(this.#input, want.role), ...this.#listedMark(want) }).filter(
      ([key, value]) => ids.get(key) !== value,
    );
    if (wrong.length === 0) return;
    if (wrong.some(([key]) => key === MARK.listed)) this.#list(want, uuid(have.uuid));
    const mutations = [
      ["external_ids", "delete", wrong.map(([key]) => key)],
      ["external_ids", "insert", mapOf(Object.fromEntries(wrong))],
    ] as const;
    this.#changes.push(ops.mutate(have.table, byUuid(have.uuid), mutations));
  }

  /** A row that lives on unlisted (DNS) notes where it is listed, for the lists themselves are not copied. */
  #listedMark(want: DesiredRow): Record<string, string> {
    if (!want.parent || LISTED_TABLES.has(want.table)) return {};
    return { [MARK.listed]: asSet(this.#resolve(want.parent)).join() };
  }

  #list(want: DesiredRow, reference: Value): void {
    if (!want.parent) return;
    const parent = this.#resolve(want.parent);
    if (typeof parent === "object" && "uuid" in parent) this.#mustExist(want.parent.table, parent.uuid);
    const where =
      typeof parent === "object" && "namedUuid" in parent ? ([["_uuid", "==", parent]] as const) : byUuid(asSet(parent).join());
    this.#changes.push(ops.mutate(want.parent.table, where, [[want.parent.column, "insert", [reference] as Value]]));
  }

  /** Else the operation would touch no row, succeed, and leave the rest half-made. */
  #mustExist(table: Table, id: string): void {
    this.#guards.push(ops.wait(table, byUuid(id), "!=", [], { columns: ["external_ids"] }));
  }

  #remove({ table, uuid: id }: ActualRow): void {
    const parent = PARENT_OF[table];
    if (!parent) {
      this.#changes.push(ops.delete(table, byUuid(id)));
      return;
    }
    const reference: Value = [uuid(id)];
    this.#changes.push(
      ops.mutate(parent.table, [[parent.column, "includes", reference]], [[parent.column, "delete", reference]]),
    );
  }
}

const rowName = (index: number): string => `row${index}`;
