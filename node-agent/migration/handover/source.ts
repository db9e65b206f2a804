import { type SourceAction, type SourceView, stateOf, write } from "./types.ts";

/**
 * What the source's agent may do now with the guest that it is giving away: in this order, looking again after each one. Empty: wait
 * for something to change. Pure. Safe with records however old, and with writes of its own that land late or never: what it must not
 * forget is in its note, and each promise is noted before it is made.
 */
export function decideSource(view: SourceView): SourceAction[] {
  const state = stateOf(view.record, view.attempt);
  if (state === "Source") return runHere(view);
  if (state === "Done") return [{ do: view.leftovers ? "destroy" : "settled" }];
  if (state === "Target") return [];
  if (view.note === "Gone") return letGo(view, state);
  if (view.note === "GivingUp") return giveUp(view, state);
  if (mustGiveUp(view, state)) {
    // In the switchover QEMU may have completed by now, even by post-copy: first make it say which; nothing is promised yet.
    return [view.qemu === "held" ? { do: "cancel" } : { do: "note", note: "GivingUp" }];
  }
  return goOn(view, state);
}

/** The record says Source: the guest is ours, whatever was noted. */
function runHere({ qemu, owes }: SourceView): SourceAction[] {
  if (qemu === "copying" || qemu === "held") return [{ do: "cancel" }];
  if (qemu === "complete") return [{ do: owes ? "bootAgain" : "resume" }];
  return [{ do: "settled" }];
}

/** Gone is noted: the target may run by now, so only it or the record can bring the guest back. */
function letGo({ attempt, link }: SourceView, state: "Copying" | "Handover" | undefined): SourceAction[] {
  if (link === "up") return [{ do: "sendGo" }];
  return state === "Handover" ? [write(attempt, "Handover", "Target")] : [];
}

/** GivingUp is noted: this target can never run, so the guest need not wait for the API. */
function giveUp({ attempt, qemu, owes }: SourceView, state: "Copying" | "Handover" | undefined): SourceAction[] {
  const store = state ? [write(attempt, state, "Source")] : [];
  if (qemu === "copying" || qemu === "held") return [{ do: "cancel" }, ...store];
  if (qemu === "complete") return [{ do: owes ? "bootAgain" : "resume" }, ...store];
  return store;
}

function mustGiveUp({ qemu, owes, link, wants }: SourceView, state: "Copying" | "Handover" | undefined): boolean {
  if (owes) return false; // memory in two halves: forward is the only way that keeps it
  if (wants === "out" || qemu === "gone") return true;
  const started = qemu !== "idle";
  if (link === "down" && started) return true;
  return state === "Handover" && qemu === "idle"; // QEMU failed and runs on by itself; the target may have been complete
}

function goOn({ attempt, qemu, wants }: SourceView, state: "Copying" | "Handover" | undefined): SourceAction[] {
  if (qemu === "complete") return [{ do: "note", note: "Gone" }];
  if (qemu === "held" && state === "Copying") return [write(attempt, "Copying", "Handover")]; // it paused before it might
  if (qemu === "held" && state === "Handover") return [{ do: "finish" }];
  if (qemu === "copying" && wants === "switch" && state === "Copying") return [write(attempt, "Copying", "Handover")];
  if (qemu === "copying" && wants === "switch" && state === "Handover") return [{ do: "allowPause" }];
  return [];
}
