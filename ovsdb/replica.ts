/** A live copy of some tables of a database. */
import type { Condition } from "./operations.ts";
import { encodeConditions } from "./operations.ts";
import type { DatabaseSchema } from "./schema.ts";
import {
  applyUpdate1,
  applyUpdate2,
  changesBetween,
  type Columns,
  type RawUpdate1,
  type RawUpdate2,
  type RowChange,
} from "./updates.ts";
import type { Row } from "./values.ts";

/** What to copy: columns (default: all) of rows for which the conditions hold (any of them; default: all rows). */
export interface TableSpec {
  readonly columns?: readonly string[];
  readonly where?: readonly Condition[];
}
export type MonitorSpec = Readonly<Record<string, TableSpec>>;

const NO_TRANSACTION = "00000000-0000-0000-0000-000000000000";
const NO_ROWS: ReadonlyMap<string, Row> = new Map();

/** Rows as the server last said. After a lost connection the old rows stay, `synced` is false, and what differs then is told as changes. */
export class Replica {
  readonly spec: MonitorSpec;
  /** Last transaction that is in the rows, as the server names it. */
  lastTransaction = NO_TRANSACTION;
  readonly #tables = new Map<string, Map<string, Row>>();
  readonly #listeners = new Set<(changes: RowChange[]) => void>();
  readonly #syncListeners = new Set<() => void>();
  #columns = new Map<string, Columns>();
  #synced = false;
  #stopped: Error | undefined;
  #whenSynced = Promise.withResolvers<void>();

  readonly #onListenerError: (error: unknown) => void;

  constructor(spec: MonitorSpec, onListenerError: (error: unknown) => void) {
    this.spec = spec;
    this.#onListenerError = onListenerError;
    this.#whenSynced.promise.catch(() => undefined); // nobody need be waiting
  }

  /** Whether the rows are what the server has, as far as it has told: false before the first snapshot and while disconnected. */
  get synced(): boolean {
    return this.#synced;
  }

  /** Resolves once `synced`; rejects when the signal aborts or the client stops. */
  whenSynced(signal?: AbortSignal): Promise<void> {
    if (!signal) return this.#whenSynced.promise;
    return new Promise((resolve, reject) => {
      const onAbort = (): void => reject(signal.reason instanceof Error ? signal.reason : new Error("aborted"));
      if (signal.aborted) return onAbort();
      signal.addEventListener("abort", onAbort, { once: true });
      this.#whenSynced.promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
    });
  }

  /** Rows of a table by uuid; empty before the first snapshot. Live: it changes under the reader between turns of the event loop. */
  rows(table: string): ReadonlyMap<string, Row> {
    return this.#tables.get(table) ?? NO_ROWS;
  }

  /** Calls `fn` after each change of rows; one message, or one resynchronisation, is one call. Returns how to stop. */
  onChange(fn: (changes: RowChange[]) => void): () => void {
    this.#listeners.add(fn);
    return () => this.#listeners.delete(fn);
  }

  /** Calls `fn` each time the replica is (again) in step with a server, after onChange told what differed. */
  onSync(fn: () => void): () => void {
    this.#syncListeners.add(fn);
    return () => this.#syncListeners.delete(fn);
  }

  /** Parameters of a monitor request; columns and tables that this server does not know are left out. */
  request(schema: DatabaseSchema): {
    withConditions: Record<string, unknown>;
    plain: Record<string, unknown>;
    conditional: boolean;
  } {
    const withConditions: Record<string, unknown> = {};
    const plain: Record<string, unknown> = {};
    let conditional = false;
    const before = this.#columns;
    this.#columns = new Map();
    for (const [table, { columns: wanted, where }] of Object.entries(this.spec)) {
      const known = schema.get(table);
      if (!known) continue;
      const names = (wanted ?? [...known.keys()]).filter((column) => known.has(column));
      this.#columns.set(table, new Map([...known].filter(([column]) => names.includes(column))));
      conditional ||= where !== undefined;
      withConditions[table] = [{ columns: names, ...(where ? { where: encodeConditions(where) } : {}) }];
      plain[table] = { columns: names };
    }
    // Another set of columns (the server was upgraded): the rows we hold are no base for differences.
    if (columnNames(before) !== columnNames(this.#columns)) this.lastTransaction = NO_TRANSACTION;
    return { withConditions, plain, conditional };
  }

  /** Takes the whole content anew, as update2 or RFC 7047 entries, and tells what differs from before. */
  reset(snapshot: unknown, form: 1 | 2): void {
    const next = new Map<string, Map<string, Row>>();
    for (const [table, id, entry] of entries(snapshot)) {
      const columns = this.#columns.get(table) ?? new Map();
      const row = form === 2 ? applyUpdate2(undefined, entry as RawUpdate2, columns) : applyUpdate1(entry as RawUpdate1, columns);
      if (row) tableOf(next, table).set(id, row);
    }
    const changes = Object.keys(this.spec).flatMap((table) =>
      changesBetween(table, this.rows(table), next.get(table) ?? NO_ROWS),
    );
    for (const table of Object.keys(this.spec)) this.#tables.set(table, next.get(table) ?? new Map());
    this.#tell(changes);
  }

  /** Takes what the server says has changed. Throws when that cannot be: the caller starts over. */
  update(updates: unknown, form: 1 | 2): void {
    const changes: RowChange[] = [];
    for (const [table, id, entry] of entries(updates)) {
      const rows = tableOf(this.#tables, table);
      const columns = this.#columns.get(table) ?? new Map();
      const old = rows.get(id);
      const now = form === 2 ? applyUpdate2(old, entry as RawUpdate2, columns) : applyUpdate1(entry as RawUpdate1, columns);
      if (now) rows.set(id, now);
      else rows.delete(id);
      if (old || now) changes.push({ table, uuid: id, ...(old ? { old } : {}), ...(now ? { now } : {}) });
    }
    this.#tell(changes);
  }

  markSynced(): void {
    if (this.#synced || this.#stopped) return;
    this.#synced = true;
    this.#whenSynced.resolve();
    for (const fn of this.#syncListeners) this.#guard(fn);
  }

  /** The connection is gone; with `final`, it will not come back. */
  markLost(final?: Error): void {
    if (this.#synced) {
      this.#synced = false;
      this.#whenSynced = Promise.withResolvers();
      this.#whenSynced.promise.catch(() => undefined);
    }
    if (!final) return;
    this.#stopped = final;
    this.#whenSynced.reject(final);
  }

  #tell(changes: RowChange[]): void {
    if (changes.length > 0) for (const fn of this.#listeners) this.#guard(() => fn(changes));
  }

  /** A listener's bug must not look like a broken connection. */
  #guard(fn: () => void): void {
    try {
      fn();
    } catch (error) {
      this.#onListenerError(error);
    }
  }
}

const columnNames = (tables: ReadonlyMap<string, Columns>): string =>
  [...tables]
    .map(([table, columns]) => `${table}:${[...columns.keys()].sort().join(",")}`)
    .sort()
    .join(";");

const tableOf = (tables: Map<string, Map<string, Row>>, table: string): Map<string, Row> => {
  const rows = tables.get(table) ?? new Map<string, Row>();
  tables.set(table, rows);
  return rows;
};

function* entries(updates: unknown): Generator<[table: string, uuid: string, entry: unknown]> {
  for (const [table, rows] of Object.entries((updates ?? {}) as Record<string, Record<string, unknown>>)) {
    for (const [id, entry] of Object.entries(rows)) yield [table, id, entry];
  }
}
