import { stateOf, type TargetAction, type TargetView, write } from "./types.ts";

/**
 * What the target's agent may do now with the copy that it receives: in this order, looking again after each one. Empty: wait for
 * something to change. Pure. Safe with records however old, with a late or repeated `go`, and with writes of its own that land late.
 */
export function decideTarget(view: TargetView): TargetAction[] {
  const state = stateOf(view.record, view.attempt);
  if (state === "Source") return [{ do: view.leftovers ? "destroy" : "settled" }];
  if (state === "Done") return settle(view);
  if (view.note === "Ran") return run(view, state);
  if (state === "Target") return takeByRecord(view);
  if (view.note === "Refusing") return state ? [write(view.attempt, state, "Source")] : [];
  if (view.go && view.qemu === "complete" && view.keep !== "Source") return [{ do: "note", note: "Ran" }];
  return mustRefuse(view) ? [{ do: "note", note: "Refusing" }] : [];
}

/** A complete copy may be the only one left: the source says what becomes of it, or the user; neither time nor silence. */
function mustRefuse({ qemu, wantsOut, keep }: TargetView): boolean {
  return qemu === "gone" || (qemu === "waiting" && wantsOut) || keep === "Source";
}

/** Done: the guest lives here, and the source is not needed any more (or is proven dead, with pages that we lack). */
function settle({ qemu, missing, note }: TargetView): TargetAction[] {
  if (qemu === "running" && missing) return [{ do: "bootAgain" }];
  if (qemu === "complete") {
    if (note !== "Ran") return [{ do: "note", note: "Ran" }];
    return [{ do: missing ? "bootAgain" : "resume" }];
  }
  return [{ do: "settled" }];
}

/** Ran is noted: the guest is here, even if its QEMU has died since; then it boots again from its disks. */
function run(
  { attempt, qemu, missing, sourceEnded }: TargetView,
  state: "Copying" | "Handover" | "Target" | undefined,
): TargetAction[] {
  if (qemu === "complete") return [{ do: "resume" }];
  if (state !== "Handover" && state !== "Target") return [];
  if (qemu === "running" && missing && !sourceEnded) return state === "Handover" ? [write(attempt, "Handover", "Target")] : [];
  return [write(attempt, state, "Done")];
}

/** The record says Target, and it has never run: it may, whatever it refused before. */
function takeByRecord({ attempt, qemu, wantsOut }: TargetView): TargetAction[] {
  if (qemu === "complete") return [{ do: "note", note: "Ran" }];
  // Only a copy that can never run gives the guest back from here, for this write may land late.
  if (qemu === "gone") return [write(attempt, "Target", "Source")];
  return qemu === "waiting" && wantsOut ? [{ do: "destroy" }] : [];
}
