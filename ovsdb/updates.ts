/** What a server's update messages do to rows: pure, for `update` (RFC 7047 §4.1.6) and `update2`/`update3` (ovsdb-server(7)). */
import type { ColumnShape } from "./schema.ts";
import { type Atom, asAtoms, canonical, decodeRow, isMapValue, type Row, type Value } from "./values.ts";

export interface RowChange {
  readonly table: string;
  readonly uuid: string;
  /** The row before; undefined for a new one. */
  readonly old?: Row;
  /** The row now; undefined for one that is gone. */
  readonly now?: Row;
}

export type Columns = ReadonlyMap<string, ColumnShape>;
type RawRow = Record<string, unknown>;
export interface RawUpdate2 {
  initial?: RawRow;
  insert?: RawRow;
  modify?: RawRow;
  delete?: unknown;
}
export interface RawUpdate1 {
  old?: RawRow;
  new?: RawRow;
}

/** A column that is a set by its type is an array here, also when the server wrote its one element alone. */
const shaped = (value: Value, shape: ColumnShape | undefined): Value =>
  shape && Array.isArray(shape.empty) ? asAtoms(value) : value;

const withDefaults = (raw: RawRow, columns: Columns): Row => {
  const row: Record<string, Value> = {};
  for (const [column, { empty }] of columns) row[column] = empty;
  for (const [column, value] of Object.entries(decodeRow(raw))) row[column] = shaped(value, columns.get(column));
  return row;
};

const keyOf = (atom: Atom): string => canonical([atom]);

/** Elements that are in exactly one of the two. */
const setDifference = (old: Value, diff: Value): Value => {
  const kept = new Map(asAtoms(old).map((atom) => [keyOf(atom), atom]));
  for (const atom of asAtoms(diff)) {
    const key = keyOf(atom);
    if (!kept.delete(key)) kept.set(key, atom);
  }
  return [...kept.values()];
};

/** A pair that the old map has is taken out, any other is put in. */
const mapDifference = (old: Value, diff: Value): Value => {
  const kept = new Map<string, [Atom, Atom]>();
  if (isMapValue(old)) for (const pair of old) kept.set(keyOf(pair[0]), pair);
  if (isMapValue(diff)) {
    for (const [key, value] of diff) {
      const before = kept.get(keyOf(key));
      if (before && keyOf(before[1]) === keyOf(value)) kept.delete(keyOf(key));
      else kept.set(keyOf(key), [key, value]);
    }
  }
  return new Map(kept.values());
};

const modify = (old: Row, raw: RawRow, columns: Columns): Row => {
  const row: Record<string, Value> = { ...old };
  for (const [column, diff] of Object.entries(decodeRow(raw))) {
    const shape = columns.get(column);
    const before = old[column] ?? shape?.empty ?? [];
    if (shape?.diff === "set") row[column] = setDifference(before, diff);
    else if (shape?.diff === "map") row[column] = mapDifference(before, diff);
    else row[column] = shaped(diff, shape);
  }
  return row;
};

/** The row after an update2 entry; undefined when it is gone. Throws for a change of a row that is not known: the replica is then wrong. */
export const applyUpdate2 = (old: Row | undefined, update: RawUpdate2, columns: Columns): Row | undefined => {
  const whole = update.initial ?? update.insert;
  if (whole) return withDefaults(whole, columns);
  if (!update.modify) return undefined;
  if (!old) throw new Error("the server changed a row that it had never sent");
  return modify(old, update.modify, columns);
};

/** The row after an RFC 7047 entry, whose `new` holds every monitored column. */
export const applyUpdate1 = (update: RawUpdate1, columns: Columns): Row | undefined =>
  update.new ? withDefaults(update.new, columns) : undefined;

const sameRow = (a: Row, b: Row): boolean =>
  Object.keys(a).length === Object.keys(b).length &&
  Object.entries(a).every(([column, value]) => {
    const other = b[column];
    return other !== undefined && canonical(value) === canonical(other);
  });

/** Changes that lead from one set of rows to another, for a replica that had to start over. */
export const changesBetween = (table: string, before: ReadonlyMap<string, Row>, after: ReadonlyMap<string, Row>): RowChange[] => {
  const changes: RowChange[] = [];
  for (const [id, old] of before) if (!after.has(id)) changes.push({ table, uuid: id, old });
  for (const [id, now] of after) {
    const old = before.get(id);
    if (!old) changes.push({ table, uuid: id, now });
    else if (!sameRow(old, now)) changes.push({ table, uuid: id, old, now });
  }
  return changes;
};
