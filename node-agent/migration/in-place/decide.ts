/** Which of two processes may run the guest while it gets another QEMU on its node: one agent, both processes, one note. */
import type { UpdateState } from "../../instance/update.ts";
import type { Handover } from "../../../crds/migration.ts";
import { stateOf, write, type RecordWrite } from "../handover/types.ts";

/**
 * Before what it promises. Without Switched the new process is never let run, and may be ended; with it the old one never runs again: both
 * have one memory, and what the old one knows of its devices is stale once the new one ran. GivingUp: the old one has it for good.
 * Switched need not survive a power cut: both processes end with that, and the guest boots from the same disks either way.
 */
export type UpdateMark = "none" | "GivingUp" | "Switched";

export interface UpdateView {
  /** The attempt that the note speaks of. */
  readonly attempt: number;
  /** status.handover as last read, however old; undefined if it was never read since this agent started. */
  readonly record: Handover | undefined;
  readonly qemu: UpdateState;
  readonly note: UpdateMark;
  /** It is not to go on: failure, time-out, cancel. */
  readonly wantsOut: boolean;
  /** GivingUp: the new process was ended, and the old one runs, as far as it lives. */
  readonly restored: boolean;
  /** Whether something of the process that is not the right one may still be there. */
  readonly leftovers: boolean;
}

/**
 * What the agent may do next, the first of them at once; it looks again after each one. prepare, run, finish, restore: the driver's prepare,
 * run, finish, giveUp. switch: the driver's switchOver, which asks for the note Switched in its middle and goes on with run. over: the
 * attempt is over here, and its note may go.
 */
export type UpdateAction =
  | RecordWrite
  | { readonly do: "note"; readonly note: Exclude<UpdateMark, "none"> }
  | { readonly do: UpdateWork }
  | { readonly do: "over" };

/** What is done to the processes, one at a time. */
export type UpdateWork = "prepare" | "switch" | "run" | "finish" | "restore";

/** Pure. Empty: wait for something to change. Safe with records of any age, and with writes of its own that land late or never. */
export function decideUpdate(view: UpdateView): UpdateAction[] {
  const state = stateOf(view.record, view.attempt);
  if (state === "Source") return [{ do: view.leftovers ? "restore" : "over" }];
  if (state === "Done") return [{ do: view.leftovers ? "finish" : "over" }];
  if (view.note === "Switched") return goOver(view);
  if (view.note === "GivingUp") return goBack(view, state);
  if (view.wantsOut || view.qemu === "gone") return [{ do: "note", note: "GivingUp" }];
  return goOn(view, state);
}

/** Switched is noted: the guest is the new process's, and the record follows. A new one that has ended may have run. */
function goOver({ attempt, qemu }: UpdateView): UpdateAction[] {
  return qemu === "held" ? [{ do: "run" }] : [write(attempt, "Handover", "Done")];
}

function goBack({ attempt, restored }: UpdateView, state: ReturnType<typeof stateOf>): UpdateAction[] {
  const store = state === undefined ? [] : [write(attempt, state, "Source")];
  return restored ? store : [{ do: "restore" }, ...store];
}

function goOn({ attempt, qemu }: UpdateView, state: ReturnType<typeof stateOf>): UpdateAction[] {
  // The guest stands still, so the record must have been Handover, and nobody else changes that: no API server is asked for it.
  if (qemu === "held") return [{ do: "note", note: "Switched" }];
  if (state === "Copying") return qemu === "old" ? [{ do: "prepare" }] : [write(attempt, "Copying", "Handover")];
  if (state !== "Handover") return [];
  return qemu === "ready" ? [{ do: "switch" }] : [{ do: "note", note: "GivingUp" }];
}
