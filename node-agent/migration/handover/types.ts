import type { Handover, HandoverState } from "../../../crds/migration.ts";

/**
 * A compare-and-set of status.handover: a JSON patch that tests the whole of `from` and puts `to` in its place. Whether it was
 * stored is known only by a later read: an answer may be lost, and a write may land long after its caller has died.
 */
export interface RecordWrite {
  readonly do: "write";
  readonly from: Handover;
  readonly to: Handover;
}

/**
 * What the source has noted durably (fsync) for this attempt. Exclusive, and never taken back while the attempt lasts.
 * GivingUp: it never lets this target run. Gone: it never runs again, unless the record says Source.
 */
export type SourceNote = "none" | "GivingUp" | "Gone";

/**
 * What the target has noted durably for this attempt. Refusing: it obeys no `go`, only the record. Ran: it may have run,
 * so what its copy holds is the guest.
 */
export type TargetNote = "none" | "Refusing" | "Ran";

export interface SourceView {
  /** The attempt that this agent's note speaks of. Noted before anything of the attempt is done to QEMU. */
  readonly attempt: number;
  /** status.handover as last read, however old; undefined if it was never read since this agent started. */
  readonly record: Handover | undefined;
  /** held: CPUs stopped, may resume by itself; complete: CPUs stopped, never resumes by itself. */
  readonly qemu: "idle" | "copying" | "held" | "complete" | "gone";
  /** complete by post-copy: pages that the target lacks are still here, so this memory cannot be resumed. */
  readonly owes: boolean;
  readonly note: SourceNote;
  /** Whether the target's agent answers on the channel of this attempt. */
  readonly link: "up" | "down";
  /** switch: what is left fits into the pause that policy allows (or post-copy is to begin). out: failure, time-out, cancel. */
  readonly wants: "nothing" | "switch" | "out";
  /** Whether anything of its copy is here: process, volumes, taps, directory. */
  readonly leftovers: boolean;
}

/**
 * What the source's agent may do next. Each may be repeated. After each one it looks again and decides anew.
 * allowPause: MoveDriver.allowPause (post-copy: postCopy). finish: MoveDriver.finish. cancel: MoveDriver.giveUp, the guest runs on.
 * resume: `cont` of a completed source. bootAgain: end this QEMU, the guest boots from its disks here (its memory is lost).
 * destroy: the whole copy, disks too. settled: the attempt is over here: say GivenUp (record Source) or Released (Done), drop the note.
 */
export type SourceAction =
  | RecordWrite
  | { readonly do: "note"; readonly note: Exclude<SourceNote, "none"> }
  | { readonly do: "allowPause" | "finish" | "sendGo" | "cancel" | "resume" | "bootAgain" | "destroy" | "settled" };

export interface TargetView {
  /** The attempt that this agent's note speaks of, and that its QEMU was made for. */
  readonly attempt: number;
  /** As in SourceView. */
  readonly record: Handover | undefined;
  /** complete: it can be resumed, and its CPUs have stood still so far. gone also when it was never started. */
  readonly qemu: "waiting" | "complete" | "running" | "gone";
  /** Post-copy: some of its memory is still at the source. */
  readonly missing: boolean;
  readonly note: TargetNote;
  /** Whether the source's agent said `go` for this attempt. Volatile. */
  readonly go: boolean;
  /** It will not get what it waits for: link dead for too long, time-out, failure. A complete copy is never given up for that. */
  readonly wantsOut: boolean;
  /** Post-copy: the source's agent said that its QEMU has ended, so what is missing never comes. A dead link says nothing of the kind. */
  readonly sourceEnded: boolean;
  /** The user's decision, spec.keep. Source: a copy that has not run is given back, complete or not. */
  readonly keep: "Source" | "Target" | undefined;
  /** Whether anything of its copy is here: process, volumes that it made, taps, directory. */
  readonly leftovers: boolean;
}

/**
 * What the target's agent may do next, as SourceAction. bootAgain: its memory can never be whole, the guest boots from its disks here.
 * destroy: MoveDriver.abandon and all that was made for the attempt. settled: the attempt is over here: say Released (record Source)
 * or leave the guest to the ordinary controller (Done), drop the note.
 */
export type TargetAction =
  | RecordWrite
  | { readonly do: "note"; readonly note: Exclude<TargetNote, "none"> }
  | { readonly do: "resume" | "bootAgain" | "destroy" | "settled" };

/** What the record says of one attempt; undefined: not known. A record of a later attempt proves that this one was given up. */
export function stateOf(record: Handover | undefined, attempt: number): HandoverState | undefined {
  if (!record || record.attempt < attempt) return undefined;
  return record.attempt > attempt ? "Source" : record.state;
}

/** The write that takes an attempt from one state to the next. */
export function write(attempt: number, from: HandoverState, to: HandoverState): RecordWrite {
  return { do: "write", from: { attempt, state: from }, to: { attempt, state: to } };
}
