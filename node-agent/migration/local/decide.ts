/** Which of two volumes of one disk is the right one, while it goes to another pool of its node: one agent, one QEMU, one note. */
import type { PoolMoveState } from "../../instance/pool-move.ts";
import type { Handover } from "../../../crds/migration.ts";
import { stateOf, write, type RecordWrite } from "../handover/types.ts";

/**
 * Durable (fsync of file and directory), and before what it promises. Without Pivoting the old volume is right, with it the new one.
 * GivingUp: the old one stays right for good.
 */
export type LocalMark = "none" | "GivingUp" | "Pivoting";

export interface LocalView {
  /** The attempt that the note speaks of. */
  readonly attempt: number;
  /** status.handover as last read, however old; undefined if it was never read since this agent started. */
  readonly record: Handover | undefined;
  readonly disk: PoolMoveState;
  readonly note: LocalMark;
  /** It is not to go on: failure, time-out, cancel. */
  readonly wantsOut: boolean;
  /** Disk new: the old volume was let go of, and the guest belongs to the new claim. */
  readonly settled: boolean;
  /** Whether the volume that is not the right one may still be there. */
  readonly leftovers: boolean;
}

/**
 * What the agent may do next, the first of them at once; it looks again after each one. complete, pivot, settle, cancel: the driver's
 * complete, pivot, settle, giveUp. destroyOld, destroyNew: that volume goes. over: the attempt is over here, and its note may go once
 * the Instance says where the disk is.
 */
export type LocalAction =
  | RecordWrite
  | { readonly do: "note"; readonly note: Exclude<LocalMark, "none"> }
  | { readonly do: "complete" | "pivot" | "settle" | "cancel" | "destroyOld" | "destroyNew" | "over" };

/** Pure. Empty: wait for something to change. Safe with records of any age, and with writes of its own that land late or never. */
export function decideLocal(view: LocalView): LocalAction[] {
  const state = stateOf(view.record, view.attempt);
  if (state === "Source") return stay(view);
  if (state === "Done") return [{ do: view.leftovers ? "destroyOld" : "over" }];
  if (view.note === "Pivoting") return goOver(view);
  if (view.note === "GivingUp") return giveUp(view, state);
  if (view.wantsOut || view.disk === "gone") return [{ do: "note", note: "GivingUp" }];
  return goOn(view, state);
}

const underWay = (disk: PoolMoveState): boolean => disk === "copying" || disk === "ready" || disk === "pending";

/** The record says Source: the old volume is right, and nobody can make it otherwise any more. */
function stay({ disk, leftovers }: LocalView): LocalAction[] {
  if (underWay(disk)) return [{ do: "cancel" }];
  return [{ do: leftovers ? "destroyNew" : "over" }];
}

/** Pivoting is noted: the new volume is right, and the record follows. A guest that has ended boots from it. */
function goOver({ attempt, disk, settled }: LocalView): LocalAction[] {
  if (disk === "pending") return [{ do: "pivot" }];
  if (disk === "new" && !settled) return [{ do: "settle" }];
  if (disk === "new" || disk === "gone") return [write(attempt, "Handover", "Done")];
  // QEMU refused the exchange and went on with the old one: no Done was written, for that comes after the exchange.
  return [{ do: "note", note: "GivingUp" }];
}

function giveUp({ attempt, disk }: LocalView, state: ReturnType<typeof stateOf>): LocalAction[] {
  const store = state === undefined ? [] : [write(attempt, state, "Source")];
  return underWay(disk) ? [{ do: "cancel" }, ...store] : store;
}

function goOn({ attempt, disk }: LocalView, state: ReturnType<typeof stateOf>): LocalAction[] {
  if (state === "Copying") return disk === "ready" ? [write(attempt, "Copying", "Handover")] : [];
  if (state !== "Handover") return [];
  if (disk === "ready") return [{ do: "complete" }];
  // Only now: in any other moment the new volume may lack what the guest was told to be written.
  if (disk === "pending") return [{ do: "note", note: "Pivoting" }];
  return [{ do: "note", note: "GivingUp" }]; // the copying ended by itself
}
