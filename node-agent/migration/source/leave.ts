/** Why a move is given up from the source's side. Pure. */
import type { Migration } from "../../../crds/migration.ts";
import type { MoveEvent, OutgoingState } from "../../instance/move.ts";
import type { Why } from "../notes.ts";
import { unwanted } from "../wishes.ts";

/** From the leave to pause until the guest stands still, and from there until all is sent. */
export const SWITCH_MS = 30_000;

export interface LeaveFacts {
  attempt: number;
  qemu: OutgoingState;
  migration: Migration;
  /** Why copying failed. */
  failed: Why | undefined;
  /** How long it may be stopped already; undefined: it may not. */
  allowedForMs: number | undefined;
}

/** What others want, or do not do. A guest that stands still is not given up for a user's change of mind. */
export function reasonToLeave({ attempt, qemu, migration, failed, allowedForMs = 0 }: LeaveFacts): Why | undefined {
  if (standsStill(qemu)) return undefined;
  if (qemu === "gone") return { reason: "GuestEnded", message: "the guest ended while it was moved", retryable: true };
  if (failed !== undefined) return failed;
  const wish = unwanted(migration);
  if (wish !== undefined) return wish;
  const target = migration.status?.target;
  if (target?.attempt === attempt && (target.state === "GivenUp" || target.state === "Released")) {
    return targetGaveUp(target.message, target.retryable);
  }
  if (allowedForMs < SWITCH_MS) return undefined;
  const message = `the guest could not be stopped within ${SWITCH_MS / 1_000} s, for it writes its memory faster than it is sent`;
  return { reason: "NotConverging", message, retryable: true };
}

/** What QEMU tells of a failure; undefined: it tells of something else. */
export function failureOf(event: MoveEvent): Why | undefined {
  if (event.kind === "failed") return { reason: "MemoryCopyFailed", message: event.message, retryable: true };
  if (event.kind !== "disk-failed") return undefined;
  const message = `disk ${event.disk} could not be copied: ${event.message ?? ""}`;
  return { reason: "DiskCopyFailed", message, retryable: true };
}

/** The move cannot go on, whoever is to blame. `trouble`: why the agents do not hear each other, if they do not. */
export function broken(qemu: OutgoingState | undefined, trouble: string | undefined): Why {
  const because = trouble === undefined ? "QEMU could not go on with the move" : `the agents lost each other: ${trouble}`;
  return { reason: "MoveBroken", message: qemu === "gone" ? "the guest ended while it was moved" : because, retryable: true };
}

export const targetGaveUp = (message: string | undefined, retryable: boolean | undefined): Why => ({
  reason: "TargetGaveUp",
  message: message ?? "the target gave up",
  retryable: retryable ?? true,
});

export const standsStill = (qemu: OutgoingState): boolean => qemu === "held" || qemu === "complete" || qemu === "draining";
