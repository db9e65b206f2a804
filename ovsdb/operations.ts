/** Operations of a transaction (RFC 7047 §5.2), built typed and encoded in one place. */
import { decodeRow, encodeRow, encodeValue, type Row, type Value } from "./values.ts";

export type Comparison = "==" | "!=" | "<" | "<=" | ">" | ">=" | "includes" | "excludes";
export type Condition = readonly [column: string, comparison: Comparison, value: Value];
export type Mutator = "+=" | "-=" | "*=" | "/=" | "%=" | "insert" | "delete";
export type Mutation = readonly [column: string, mutator: Mutator, value: Value];

/** One operation, still as values; `encodeOperation` turns it into what goes over the wire. */
export type Operation =
  | { readonly op: "insert"; readonly table: string; readonly row: Row; readonly uuidName?: string }
  | { readonly op: "select"; readonly table: string; readonly where: readonly Condition[]; readonly columns?: readonly string[] }
  | { readonly op: "update"; readonly table: string; readonly where: readonly Condition[]; readonly row: Row }
  | {
      readonly op: "mutate";
      readonly table: string;
      readonly where: readonly Condition[];
      readonly mutations: readonly Mutation[];
    }
  | { readonly op: "delete"; readonly table: string; readonly where: readonly Condition[] }
  | {
      readonly op: "wait";
      readonly table: string;
      readonly where: readonly Condition[];
      readonly columns: readonly string[];
      readonly until: "==" | "!=";
      readonly rows: readonly Row[];
      readonly timeoutMs: number;
    }
  | { readonly op: "comment"; readonly comment: string };

/** What an operation gave: the new row's uuid (insert), rows (select), how many rows it touched (update, mutate, delete). */
export interface OperationResult {
  uuid?: string;
  rows?: Row[];
  count?: number;
}

/** Rows with this uuid: the usual condition. */
export const byUuid = (id: string): readonly Condition[] => [["_uuid", "==", { uuid: id }]];

export const ops = {
  /** A new row; `uuidName` lets the same transaction refer to it by `namedUuid(uuidName)`. */
  insert: (table: string, row: Row, uuidName?: string): Operation => ({
    op: "insert",
    table,
    row,
    ...(uuidName === undefined ? {} : { uuidName }),
  }),
  select: (table: string, where: readonly Condition[], columns?: readonly string[]): Operation => ({
    op: "select",
    table,
    where,
    ...(columns === undefined ? {} : { columns }),
  }),
  update: (table: string, where: readonly Condition[], row: Row): Operation => ({ op: "update", table, where, row }),
  mutate: (table: string, where: readonly Condition[], mutations: readonly Mutation[]): Operation => ({
    op: "mutate",
    table,
    where,
    mutations,
  }),
  delete: (table: string, where: readonly Condition[]): Operation => ({ op: "delete", table, where }),
  /** Holds the transaction until the rows are (not) so; with `timeoutMs` 0, the default, it fails with "timed out" at once instead. */
  wait: (
    table: string,
    where: readonly Condition[],
    until: "==" | "!=",
    rows: readonly Row[],
    opts: { columns: readonly string[]; timeoutMs?: number },
  ): Operation => ({ op: "wait", table, where, until, rows, columns: opts.columns, timeoutMs: opts.timeoutMs ?? 0 }),
  /** Words for the server's log. */
  comment: (comment: string): Operation => ({ op: "comment", comment }),
};

const encodeWhere = (where: readonly Condition[]): unknown[] =>
  where.map(([column, comparison, value]) => [column, comparison, encodeValue(value)]);

export const encodeConditions = encodeWhere;

/** An operation as it goes over the wire. */
export const encodeOperation = (operation: Operation): Record<string, unknown> => {
  switch (operation.op) {
    case "insert":
      return {
        op: "insert",
        table: operation.table,
        row: encodeRow(operation.row),
        ...(operation.uuidName === undefined ? {} : { "uuid-name": operation.uuidName }),
      };
    case "select":
      return {
        op: "select",
        table: operation.table,
        where: encodeWhere(operation.where),
        ...(operation.columns === undefined ? {} : { columns: operation.columns }),
      };
    case "update":
      return { op: "update", table: operation.table, where: encodeWhere(operation.where), row: encodeRow(operation.row) };
    case "mutate":
      return {
        op: "mutate",
        table: operation.table,
        where: encodeWhere(operation.where),
        mutations: operation.mutations.map(([column, mutator, value]) => [column, mutator, encodeValue(value)]),
      };
    case "delete":
      return { op: "delete", table: operation.table, where: encodeWhere(operation.where) };
    case "wait":
      return {
        op: "wait",
        table: operation.table,
        where: encodeWhere(operation.where),
        columns: operation.columns,
        until: operation.until,
        rows: operation.rows.map(encodeRow),
        timeout: operation.timeoutMs,
      };
    case "comment":
    default:
      return { op: "comment", comment: operation.comment };
  }
};

/** What an operation is, in a few words, for an error. */
export const describeOperation = (operation: Operation): string =>
  operation.op === "comment" ? "comment" : `${operation.op} on ${operation.table}`;

/** The reply to one operation, decoded. */
export const decodeResult = (raw: unknown): OperationResult => {
  if (typeof raw !== "object" || raw === null) return {};
  const { uuid, rows, count } = raw as { uuid?: unknown; rows?: unknown; count?: unknown };
  return {
    ...(Array.isArray(uuid) && typeof uuid[1] === "string" ? { uuid: uuid[1] } : {}),
    ...(Array.isArray(rows) ? { rows: rows.map((row: unknown) => decodeRow(row as Record<string, unknown>)) } : {}),
    ...(typeof count === "number" ? { count } : {}),
  };
};
