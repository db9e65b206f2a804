/** Writes `status.guest`, as seldom as it can: what is overtaken within a second is never written, and nothing is written twice. */
import type { GuestStatus, Instance } from "../../crds/instance.ts";
import { AGENT_MANAGER, API_VERSION } from "../../crds/names.ts";
import { instances } from "../../crds/resources.ts";
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
import { urgency, type Urgency } from "./guest-status.ts";

/** Waits before a write, ms. */
const WAITS: Record<Urgency, number> = { now: 0, soon: 1_000, later: 5_000 };
/** Between two writes of one object that change no state. */
const PACE_MS = 1_000;

interface Entry {
  key: ObjectKey;
  uid: string;
  /** What the API server has, as far as we know. */
  written: GuestStatus | undefined;
  writtenAt: number;
  next: GuestStatus | undefined;
  /** When the oldest word that is not written yet was said. */
  since: number;
  timer: ReturnType<Clock["setTimeout"]> | undefined;
  writing: Promise<void> | undefined;
  failures: number;
  /** By us, since the process started. */
  said: boolean;
}

export interface ReporterOptions {
  client: Pick<KubeClient, "apply">;
  clock: Clock;
  log: Logger;
  /** Called after each write that reached the API server. */
  onWritten?: (key: ObjectKey, guest: GuestStatus) => void;
}

export class Reporter {
  readonly #options: ReporterOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #told = new Set<(uid: string) => void>();
  #closed = false;
  /** Writes so far. */
  writes = 0;

  constructor(options: ReporterOptions) {
    this.#options = options;
  }

  /** What was last said of this instance: by us, else as the API server has it. */
  said(instance: Instance): GuestStatus | undefined {
    const entry = this.#entries.get(instance.metadata.uid);
    return entry?.next ?? entry?.written ?? instance.status?.guest;
  }

  /** Whether something was said of this instance since the process started, and the API server has the last of it. */
  isTold(uid: string): boolean {
    const entry = this.#entries.get(uid);
    return entry?.said === true && entry.next === undefined && entry.writing === undefined;
  }

  /** Tells the uid of an instance of which isTold has become true, or is still true after it was looked at again. */
  onTold(fn: (uid: string) => void): () => void {
    this.#told.add(fn);
    return () => void this.#told.delete(fn);
  }

  /** Says it, at once or when it has lasted a while. Never throws; a write that fails is tried again. */
  say(instance: Instance, guest: GuestStatus): void {
    if (this.#closed) return;
    const entry = this.#entry(instance);
    entry.said = true;
    if (entry.written !== undefined && sameStatus(entry.written, guest) && entry.writing === undefined) {
      entry.next = undefined;
      this.#options.clock.clearTimeout(entry.timer);
      entry.timer = undefined;
      this.#tell(entry);
      return;
    }
    const now = this.#options.clock.monotonic();
    if (entry.next === undefined) entry.since = now;
    entry.next = guest;
    this.#schedule(entry);
  }

  /** The instance is gone: what was not written is dropped. */
  forget(uid: string): void {
    const entry = this.#entries.get(uid);
    if (entry === undefined) return;
    this.#options.clock.clearTimeout(entry.timer);
    this.#entries.delete(uid);
  }

  /** Writes what waits, and nothing more afterwards. Gives up after `deadlineMs`. */
  async close(deadlineMs: number): Promise<void> {
    this.#closed = true;
    const waiting = [...this.#entries.values()].filter((entry) => entry.next !== undefined);
    const all = Promise.all(
      waiting.map((entry) => {
        this.#options.clock.clearTimeout(entry.timer);
        return this.#write(entry);
      }),
    );
    await Promise.race([all, new Promise<void>((resolve) => this.#options.clock.setTimeout(() => resolve(), deadlineMs))]);
  }

  #entry(instance: Instance): Entry {
    const { uid, name, namespace } = instance.metadata;
    const found = this.#entries.get(uid);
    if (found !== undefined) return found;
    const entry: Entry = {
      key: namespace === undefined ? { name } : { namespace, name },
      uid,
      written: instance.status?.guest,
      writtenAt: Number.NEGATIVE_INFINITY,
      next: undefined,
      since: 0,
      timer: undefined,
      writing: undefined,
      failures: 0,
      said: false,
    };
    this.#entries.set(uid, entry);
    return entry;
  }

  #schedule(entry: Entry): void {
    if (entry.next === undefined || entry.writing !== undefined) return;
    const { clock } = this.#options;
    const now = clock.monotonic();
    const due = entry.since + WAITS[urgency(entry.next, entry.written)];
    const paced = entry.next.state === entry.written?.state ? entry.writtenAt + PACE_MS : 0;
    const retry = entry.failures === 0 ? 0 : now + backoffMs(entry.failures, { baseMs: 200, capMs: 15_000 });
    const wait = Math.max(due, paced, retry) - now;
    clock.clearTimeout(entry.timer);
    entry.timer = undefined;
    if (wait <= 0) void this.#write(entry);
    else entry.timer = clock.setTimeout(() => void this.#write(entry), wait);
  }

  /** One write at a time per object; what was said meanwhile follows. */
  async #write(entry: Entry): Promise<void> {
    if (entry.writing !== undefined) await entry.writing;
    const guest = entry.next;
    if (guest === undefined || this.#entries.get(entry.uid) !== entry) return;
    entry.next = undefined;
    entry.writing = this.#apply(entry, guest);
    await entry.writing;
    entry.writing = undefined;
    this.#tell(entry);
    if (!this.#closed && this.#entries.get(entry.uid) === entry) this.#schedule(entry);
  }

  #tell({ uid }: Entry): void {
    if (this.isTold(uid)) for (const fn of this.#told) fn(uid);
  }

  async #apply(entry: Entry, guest: GuestStatus): Promise<void> {
    const { client, clock, log } = this.#options;
    try {
      await client.apply(
        instances,
        { apiVersion: API_VERSION, kind: "Instance", metadata: { ...entry.key, uid: entry.uid }, status: { guest } },
        { manager: AGENT_MANAGER, subresource: "status" },
      );
      this.writes += 1;
      entry.failures = 0;
      entry.written = guest;
      entry.writtenAt = clock.monotonic();
      this.#options.onWritten?.(entry.key, guest);
    } catch (error) {
      // With our uid in it, a write to another object of that name is refused as a conflict.
      const gone = error instanceof ApiError && (error.isNotFound || (error.isConflict && /uid/i.test(error.message)));
      if (gone) {
        log.debug({ instance: keyText(entry.key), err: error }, "the instance is gone, or another one has its name");
        this.#entries.delete(entry.uid);
        return;
      }
      entry.failures += 1;
      if (entry.failures === 1)
        log.warn({ instance: keyText(entry.key), err: error }, "status.guest could not be written; trying again");
      // What was said since is newer.
      entry.next ??= guest;
    }
  }
}
