/** When a status is worth a write: at once when somebody waits for it, else at most once a second, or seldomer. */
import { sameStatus, type Clock } from "../../kube/index.ts";
import type { OwnStatus } from "./status.ts";

/**
 * A claim is usually bound within 20 ms; the first status then says where, and "Scheduling" need not be written. Neither need it be
 * said that a pool or a network is missing which stands in the same file.
 */
export const SETTLE_MS = 250;
export const COALESCE_MS = 1000;
/**
 * How far an agent has come with a guest stands in `status.guest` of the same object; that the reason and conditions follow it is worth
 * a write of its own only when it takes long. Most guests run before that.
 */
export const UNDER_WAY_MS = 5000;

/** Reasons of a start that goes as it should. */
const UNDER_WAY: ReadonlySet<string | undefined> = new Set(["WaitingForAgent", "Preparing", "Starting"]);

const isUnderWay = (have: OwnStatus, want: OwnStatus): boolean =>
  have.phase === "Starting" && want.phase === "Starting" && UNDER_WAY.has(want.reason);

const readyStatus = (status: OwnStatus) => status.conditions?.find(({ type }) => type === "Ready")?.status;

/** Whether an agent, a script or a person waits for this change: place, phase, addresses, readiness, or the answer to a changed spec. */
function isAwaited(have: OwnStatus, want: OwnStatus): boolean {
  return (
    have.phase !== want.phase ||
    have.nodeName !== want.nodeName ||
    have.claim?.uid !== want.claim?.uid ||
    have.claim?.serial !== want.claim?.serial ||
    have.migration?.uid !== want.migration?.uid ||
    have.lastMigration?.uid !== want.lastMigration?.uid ||
    have.observedGeneration !== want.observedGeneration ||
    readyStatus(have) !== readyStatus(want) ||
    // Not by their text: the API server gives keys back in an order of its own.
    !sameStatus(have.nics ?? [], want.nics ?? [])
  );
}

/**
 * For how long a changed status is held back, in ms; 0 writes it now. Pure.
 * @param sinceWrite ms since this instance's status was last written here; undefined: never
 * @param sinceHeld ms since its first status was first held back; undefined: not yet
 */
export function holdBackMs(
  have: OwnStatus,
  want: OwnStatus,
  { sinceWrite, sinceHeld }: { sinceWrite?: number | undefined; sinceHeld?: number | undefined },
): number {
  const isWaiting = have.reason === "WaitingForPool" && want.reason === "Scheduling";
  if ((have.phase === undefined || isWaiting) && want.phase === "Pending") {
    return Math.max(0, SETTLE_MS - (sinceHeld ?? 0));
  }
  if (sinceWrite === undefined || isAwaited(have, want)) return 0;
  return Math.max(0, (isUnderWay(have, want) ? UNDER_WAY_MS : COALESCE_MS) - sinceWrite);
}

/** Remembers when statuses were written. Forgetting it costs a write, nothing else. */
export class Pace {
  readonly #clock: Clock;
  readonly #times = new Map<string, { writtenAt?: number; heldAt?: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** As holdBackMs, for the instance of this uid. */
  holdBack(uid: string, have: OwnStatus, want: OwnStatus): number {
    const now = this.#clock.monotonic();
    const times = this.#times.get(uid) ?? {};
    const since = (then: number | undefined) => (then === undefined ? undefined : now - then);
    const wait = holdBackMs(have, want, { sinceWrite: since(times.writtenAt), sinceHeld: since(times.heldAt) });
    if (wait > 0 && times.heldAt === undefined) this.#times.set(uid, { ...times, heldAt: now });
    return wait;
  }

  wrote(uid: string): void {
    this.#times.set(uid, { writtenAt: this.#clock.monotonic() });
  }

  forget(uid: string): void {
    this.#times.delete(uid);
  }
}
