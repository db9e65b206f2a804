/** Writes status.source or status.target of Migrations: at once when the state changes, else at most once a second. */
import type { MigrationSource, MigrationTarget } from "../../crds/migration.ts";
import { API_VERSION, SOURCE_MANAGER, TARGET_MANAGER } from "../../crds/names.ts";
import { migrations } from "../../crds/resources.ts";
import {
  ApiError,
  backoffMs,
  keyText,
  sameStatus,
  type Clock,
  type KubeClient,
  type Logger,
  type ObjectKey,
} from "../../kube/index.ts";
import { errorText } from "../errors.ts";

export type Said = { role: "source"; words: MigrationSource } | { role: "target"; words: MigrationTarget };
type Migrating = ObjectKey & { uid: string };

const PACE_MS = 1_000;
const RETRY = { baseMs: 200, capMs: 10_000 };

interface Entry {
  migration: Migrating;
  written: Said | undefined;
  writtenAt: number;
  next: Said | undefined;
  /** What was said last, whether it waits, is on its way or written. */
  latest: Said | undefined;
  timer: ReturnType<Clock["setTimeout"]> | undefined;
  writing: boolean;
  held: boolean;
  /** Kept until all is written, no longer. */
  released: boolean;
  failures: number;
  retryAt: number;
}

export interface MoveReporterOptions {
  client: Pick<KubeClient, "apply">;
  clock: Clock;
  log: Logger;
}

export class MoveReporter {
  readonly #options: MoveReporterOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #idle = new Set<() => void>();
  #closed = false;

  constructor(options: MoveReporterOptions) {
    this.#options = options;
  }

  /** Never throws and never waits; a write that fails is tried again until something newer was said or the object is gone. */
  say(migration: Migrating, said: Said): void {
    if (this.#closed) return;
    const entry = this.#entry(migration, said.role);
    entry.released = false;
    entry.latest = said;
    if (!entry.writing && entry.written !== undefined && sameStatus(entry.written, said)) entry.next = undefined;
    else entry.next = said;
    this.#schedule(entry);
  }

  /** While it is held nothing is written: the guest stands still, and every ms of this process is the guest's. */
  hold(migration: Migrating, role: Said["role"], held: boolean): void {
    const entry = this.#entry(migration, role);
    entry.held = held;
    this.#schedule(entry);
  }

  /** What was said last, written or not. */
  last(migration: Migrating, role: Said["role"]): Said | undefined {
    return this.#entries.get(keyOfEntry(migration, role))?.latest;
  }

  /** The object is gone, or no longer this node's: nothing of it is kept once what waits is written. */
  release({ namespace, name }: ObjectKey): void {
    for (const [key, entry] of this.#entries) {
      if (entry.migration.namespace !== namespace || entry.migration.name !== name) continue;
      entry.released = true;
      this.#dropReleased(key, entry);
    }
  }

  forget(uid: string): void {
    for (const [key, entry] of this.#entries) {
      if (entry.migration.uid !== uid) continue;
      this.#options.clock.clearTimeout(entry.timer);
      entry.next = undefined;
      this.#entries.delete(key);
    }
  }

  /** Writes what waits, then nothing more. Gives up after `deadlineMs`. */
  async close(deadlineMs: number): Promise<void> {
    this.#closed = true;
    for (const entry of this.#entries.values()) {
      entry.held = false;
      entry.writtenAt = Number.NEGATIVE_INFINITY;
      this.#schedule(entry);
    }
    const done = (): boolean => [...this.#entries.values()].every((entry) => !entry.writing && entry.next === undefined);
    await new Promise<void>((resolve) => {
      const timer = this.#options.clock.setTimeout(resolve, deadlineMs);
      const look = (): void => {
        if (!done()) return;
        this.#options.clock.clearTimeout(timer);
        resolve();
      };
      this.#idle.add(look);
      look();
    });
    for (const entry of this.#entries.values()) this.#options.clock.clearTimeout(entry.timer);
    this.#entries.clear();
  }

  #entry(migration: Migrating, role: Said["role"]): Entry {
    const key = keyOfEntry(migration, role);
    const found = this.#entries.get(key);
    if (found !== undefined) return found;
    const { namespace, name, uid } = migration;
    const entry: Entry = {
      migration: namespace === undefined ? { name, uid } : { namespace, name, uid },
      written: undefined,
      writtenAt: Number.NEGATIVE_INFINITY,
      next: undefined,
      latest: undefined,
      timer: undefined,
      writing: false,
      held: false,
      released: false,
      failures: 0,
      retryAt: Number.NEGATIVE_INFINITY,
    };
    this.#entries.set(key, entry);
    return entry;
  }

  #dropReleased(key: string, entry: Entry): void {
    if (!entry.released || entry.writing || entry.next !== undefined) return;
    if (this.#entries.get(key) === entry) this.#entries.delete(key);
  }

  #schedule(entry: Entry): void {
    const { clock } = this.#options;
    clock.clearTimeout(entry.timer);
    entry.timer = undefined;
    const { next, written } = entry;
    if (next === undefined || entry.writing || entry.held) return;
    const now = clock.monotonic();
    const news = next.words.state !== written?.words.state || next.words.attempt !== written.words.attempt;
    const due = Math.max(entry.retryAt, news ? now : entry.writtenAt + PACE_MS);
    if (due <= now) void this.#write(entry, next);
    else entry.timer = clock.setTimeout(() => this.#schedule(entry), due - now);
  }

  async #write(entry: Entry, said: Said): Promise<void> {
    const { client, clock, log } = this.#options;
    const { migration } = entry;
    entry.writing = true;
    entry.next = undefined;
    try {
      await client.apply(
        migrations,
        {
          apiVersion: API_VERSION,
          kind: "Migration",
          metadata: migration,
          status: said.role === "source" ? { source: said.words } : { target: said.words },
        },
        { manager: said.role === "source" ? SOURCE_MANAGER : TARGET_MANAGER, subresource: "status" },
      );
      entry.written = said;
      entry.writtenAt = clock.monotonic();
      entry.failures = 0;
    } catch (error) {
      const gone = error instanceof ApiError && (error.isNotFound || (error.isConflict && /uid/i.test(error.message)));
      if (gone) this.forget(migration.uid);
      else {
        if (entry.failures === 0)
          log.warn(
            { migration: keyText(migration), error: errorText(error) },
            `status.${said.role} could not be written; trying again`,
          );
        entry.failures += 1;
        entry.retryAt = clock.monotonic() + backoffMs(entry.failures, RETRY);
        entry.next ??= said;
      }
    } finally {
      entry.writing = false;
    }
    // What was said while it was written may be what was written.
    if (entry.next !== undefined && sameStatus(entry.next, entry.written)) entry.next = undefined;
    const key = keyOfEntry(migration, said.role);
    if (this.#entries.get(key) === entry) this.#schedule(entry);
    this.#dropReleased(key, entry);
    for (const look of this.#idle) look();
  }
}

const keyOfEntry = ({ uid }: Migrating, role: Said["role"]): string => `${uid}/${role}`;
