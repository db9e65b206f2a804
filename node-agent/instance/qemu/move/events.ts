/** QEMU's events, as moves see them. */
import type { Clock } from "../../../../kube/clock.ts";
import type { MoveEvent } from "../../move.ts";
import type { QmpEvent } from "../qmp/session.ts";
import { diskOf } from "./names.ts";

/** What an event of QEMU's says about a move; undefined: nothing. Pure. */
export function moveEvent(event: QmpEvent): MoveEvent | undefined {
  const { name, data, at } = event;
  switch (name) {
    case "STOP":
      return { kind: "stop", at };
    case "RESUME":
      return { kind: "resume", at };
    case "MIGRATION":
      return migrationEvent(String(data["status"]));
    case "BLOCK_JOB_READY":
    case "BLOCK_JOB_ERROR":
    case "BLOCK_JOB_CANCELLED":
    case "BLOCK_JOB_COMPLETED":
      return jobEvent(event);
    default:
      return undefined;
  }
}

function migrationEvent(status: string): MoveEvent {
  switch (status) {
    case "pre-switchover":
      return { kind: "held" };
    case "completed":
      return { kind: "complete" };
    case "postcopy-paused":
      return { kind: "interrupted" };
    case "failed":
    case "cancelled":
      return {
        kind: "failed",
        message: status === "failed" ? "QEMU could not copy the memory" : "copying the memory was cancelled",
      };
    default:
      return { kind: "state" };
  }
}

function jobEvent({ name, data }: QmpEvent): MoveEvent | undefined {
  const disk = diskOf(String(data["device"]));
  if (disk === undefined) return undefined;
  if (name === "BLOCK_JOB_READY") return { kind: "disk-ready", disk };
  const error = data["error"];
  if (name === "BLOCK_JOB_COMPLETED" && error === undefined) return { kind: "state" };
  const message = typeof error === "string" ? error : name === "BLOCK_JOB_CANCELLED" ? "cancelled" : "writing failed";
  return { kind: "disk-failed", disk, message };
}

/** What waits for QEMU hears: an event, or that the connection has ended. */
export type Heard = QmpEvent | "closed";

/** Hands QEMU's events to whoever waits for them, by instance. */
export class MoveEvents {
  readonly #clock: Clock;
  readonly #listeners = new Map<string, Set<(heard: Heard) => void>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  tell(instanceUid: string, heard: Heard): void {
    for (const listener of this.#listeners.get(instanceUid) ?? []) listener(heard);
  }

  on(instanceUid: string, fn: (heard: Heard) => void): () => void {
    const all = this.#listeners.get(instanceUid) ?? new Set();
    const listener = (heard: Heard): void => fn(heard); // an identity of its own
    this.#listeners.set(instanceUid, all.add(listener));
    return () => {
      all.delete(listener);
      if (all.size === 0 && this.#listeners.get(instanceUid) === all) this.#listeners.delete(instanceUid);
    };
  }

  /**
   * Begins to listen at once; `until` gives the first event since then that is the one. Throws when QEMU's monitor is gone, when
   * the signal aborts, or after `ms`. Whoever listens must end it with `stop`.
   */
  listen(instanceUid: string): { until: Until; stop: () => void } {
    const heard: Heard[] = [];
    let wake: () => void = () => undefined;
    const stop = this.on(instanceUid, (one) => {
      if (one !== "closed" && one.name === "MIGRATION_PASS") return; // thousands a second when a guest is idle
      heard.push(one);
      wake();
    });
    const until: Until = async (isIt, what, { ms, signal }) => {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const timer =
        ms === undefined ? undefined : this.#clock.setTimeout(() => reject(new Error(`${what}: not within ${ms} ms`)), ms);
      const abort = (): void => reject(signal?.reason instanceof Error ? signal.reason : new Error("cancelled"));
      signal?.addEventListener("abort", abort, { once: true });
      let found: QmpEvent | undefined;
      let next = 0;
      wake = () => {
        for (; next < heard.length && !found; next++) {
          const one = heard[next];
          if (one === "closed") reject(new Error(`${what}: QEMU's monitor is gone`));
          else if (one && isIt(one)) found = one;
        }
        if (found) resolve();
      };
      try {
        signal?.throwIfAborted();
        wake();
        await promise;
      } finally {
        wake = () => undefined;
        this.#clock.clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
      }
      if (!found) throw new Error(`${what}: nothing was heard`);
      return found;
    };
    return { until, stop };
  }
}

type Until = (
  isIt: (event: QmpEvent) => boolean,
  what: string,
  options: { ms?: number; signal?: AbortSignal },
) => Promise<QmpEvent>;

export const isMigration =
  (...statuses: string[]) =>
  (event: QmpEvent): boolean =>
    event.name === "MIGRATION" && statuses.includes(String(event.data["status"]));
