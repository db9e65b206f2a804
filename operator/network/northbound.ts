/** Drover's part of OVN's northbound database: rows brought to what they should be, one transaction at a time and only where they differ. */
import { DisconnectedError, OvsdbError, type OvsdbClient, type Replica } from "../../ovsdb/index.ts";
import type { Logger } from "../../kube/index.ts";
import { type Diff, diffRows } from "./diff.ts";
import { northboundConnected, northboundTransactions } from "./metrics.ts";
import { RowIndex } from "./row-index.ts";
import { type DesiredRow, monitorSpec, type Owner, type RowRef } from "./rows.ts";

export type Applied = { readonly wrote: boolean } | { readonly missing: RowRef };

/** Plans again when another writer was faster; more would be two writers at odds, which back-off must calm. */
const ATTEMPTS = 3;
/** A start waits so long for the first copy before it says that OVN is away. */
const FIRST_SYNC_MS = 5_000;

export interface NorthboundOptions {
  client: OvsdbClient;
  scope: string;
  log: Logger;
}

export class Northbound {
  readonly client: OvsdbClient;
  readonly #scope: string;
  readonly #log: Logger;
  readonly #replica: Replica;
  readonly #index: RowIndex;
  readonly #writing = new Set<Owner>();
  readonly #ownerListeners = new Set<(owner: Owner, name: string) => void>();
  #first: Promise<void> | undefined;
  #copied = false;
  #dnsOptions = false;

  constructor({ client, scope, log }: NorthboundOptions) {
    this.client = client;
    this.#scope = scope;
    this.#log = log;
    this.#replica = client.monitor(monitorSpec(scope));
    this.#replica.onSync(() => {
      this.#copied = true;
    });
    client.onState((connected) => northboundConnected.set(connected ? 1 : 0));
    this.#index = new RowIndex(this.#replica, (owner, name) => {
      // Our own write is looked at again when it is done; only others' changes are news.
      if (!this.#writing.has(owner)) for (const fn of this.#ownerListeners) fn(owner, name);
    });
  }

  /** Whether the copy is in step with the database. */
  get synced(): boolean {
    return this.#replica.synced;
  }

  /** Whether DNS rows have options on this server, as it was when last connected; known once ready() has resolved. */
  get dnsOptions(): boolean {
    this.#dnsOptions = this.client.schema?.get("DNS")?.has("options") ?? this.#dnsOptions;
    return this.#dnsOptions;
  }

  /** Calls `fn` when rows of an owner were changed by somebody else, or are gone. */
  onOwner(fn: (owner: Owner, name: string) => void): void {
    this.#ownerListeners.add(fn);
  }

  /** Calls `fn` each time the copy is in step again. */
  onSync(fn: () => void): void {
    this.#replica.onSync(fn);
  }

  owners(): [owner: Owner, name: string][] {
    return this.#index.owners();
  }

  /** "<namespace>/<name>" of an owner; "" when it has no rows. */
  nameOf(owner: Owner): string {
    return this.#index.nameOf(owner);
  }

  /** Throws, after a moment of patience at the start, when the database cannot be used now. */
  async ready(signal?: AbortSignal): Promise<void> {
    if (this.#replica.synced) return;
    const patience = AbortSignal.timeout(FIRST_SYNC_MS);
    this.#first ??= this.#replica.whenSynced(signal ? AbortSignal.any([signal, patience]) : patience).catch(() => undefined);
    await this.#first;
    if (this.#replica.synced) return;
    const why = this.client.lastError;
    throw new DisconnectedError(`OVN's northbound database cannot be reached: ${why?.message ?? "no connection yet"}`, {
      maybeApplied: false,
      cause: why,
    });
  }

  /**
   * Brings the owner's rows to what `plan` gives, in one transaction, none when nothing differs; [] removes them all. May be
   * repeated. While the database is away, rows that were as they should be when last seen count as such: what changes meanwhile
   * is told when it is back. `missing`: a row of another owner that has to be there first.
   * Throws DisconnectedError, OvsdbTimeoutError or OvsdbError.
   */
  async apply(owner: Owner, name: string, plan: () => readonly DesiredRow[], signal?: AbortSignal): Promise<Applied> {
    if (this.#copied && !this.synced && this.#isAsPlanned(this.#diff(owner, name, plan()))) return { wrote: false };
    await this.ready(signal);
    let wrote = false;
    for (let attempt = 0; attempt <= ATTEMPTS; attempt += 1) {
      const diff = this.#diff(owner, name, plan());
      if ("missing" in diff) return diff;
      if (diff.operations.length === 0) return { wrote };
      wrote = (await this.#transact(owner, diff.operations, signal)) || wrote;
    }
    throw new Error(
      `the rows of ${owner} (${name}) in OVN's northbound database differ again as soon as they are written; who else writes them?`,
    );
  }

  #diff(owner: Owner, name: string, desired: readonly DesiredRow[]): Diff {
    const find = (ref: RowRef): string | undefined => this.#index.find(ref);
    return diffRows({ owner, name, scope: this.#scope, desired, actual: this.#index.of(owner), find });
  }

  #isAsPlanned(diff: Diff): boolean {
    return "operations" in diff && diff.operations.length === 0;
  }

  /** False when a guard did not hold: another writer was faster, or our copy lagged. */
  async #transact(owner: Owner, operations: Parameters<OvsdbClient["transact"]>[0], signal?: AbortSignal): Promise<boolean> {
    this.#writing.add(owner);
    try {
      await this.client.transact(operations, signal ? { signal } : {});
      northboundTransactions.inc({ result: "done" });
      return true;
    } catch (error) {
      const refused = error instanceof OvsdbError;
      const overtaken = refused && error.error === "timed out";
      northboundTransactions.inc({ result: overtaken ? "overtaken" : refused ? "refused" : "lost" });
      if (!overtaken) throw error;
      this.#log.info({ owner }, "another writer was faster in OVN's northbound database; planning again");
      return false;
    } finally {
      this.#writing.delete(owner);
    }
  }
}
