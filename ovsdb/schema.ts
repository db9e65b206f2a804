/** The part of a database's schema (get_schema) that a replica needs: which columns there are, and what they hold when left out. */
import type { Value } from "./values.ts";

export interface ColumnShape {
  /** Value of a column that the server leaves out of a row because it is the default. */
  readonly empty: Value;
  /** How update2's "modify" speaks of it: the new value as a whole, or what differs. */
  readonly diff: "whole" | "set" | "map";
}

/** Tables, and their columns, by name. */
export type DatabaseSchema = ReadonlyMap<string, ReadonlyMap<string, ColumnShape>>;

interface RawType {
  key?: unknown;
  value?: unknown;
  min?: number;
  max?: number | "unlimited";
}

const baseType = (raw: unknown): string => {
  if (typeof raw === "string") return raw;
  const type = (raw as { type?: unknown } | undefined)?.type;
  return typeof type === "string" ? type : "string";
};

const emptyAtoms: Record<string, Value> = {
  integer: 0,
  real: 0,
  boolean: false,
  string: "",
  uuid: { uuid: "00000000-0000-0000-0000-000000000000" },
};

const columnShape = (raw: unknown): ColumnShape => {
  const type: RawType = typeof raw === "string" ? { key: raw } : (raw ?? {});
  const [min, max] = [type.min ?? 1, type.max ?? 1];
  const whole = max === 1;
  if (type.value !== undefined) return { empty: new Map(), diff: whole ? "whole" : "map" };
  if (min === 0 || max !== 1) return { empty: [], diff: whole ? "whole" : "set" };
  return { empty: emptyAtoms[baseType(type.key)] ?? "", diff: "whole" };
};

/** Reads get_schema's result; what it does not understand it leaves out. */
export const readSchema = (raw: unknown): DatabaseSchema => {
  const tables = (raw as { tables?: Record<string, { columns?: Record<string, { type?: unknown }> }> } | null)?.tables ?? {};
  return new Map(
    Object.entries(tables).map(([table, { columns }]) => [
      table,
      new Map(Object.entries(columns ?? {}).map(([column, { type }]) => [column, columnShape(type)])),
    ]),
  );
};
