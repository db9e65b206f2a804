import type { Handover, HandoverState, MigrationSource, MigrationTarget } from "../../crds/migration.ts";

/** dead: proven (out-of-service taint, fenced), nothing runs there any more. silent: nobody knows. */
export type NodeLife = "alive" | "silent" | "dead";

export interface OperatorView {
  /** status.handover as read; undefined before the first attempt. */
  readonly record: Handover | undefined;
  /** The move is to end: cancelled, timed out, its instance is being deleted, a claim was lost. */
  readonly giveUp: boolean;
  /** Another attempt is wanted, and its target claim is ready. */
  readonly retry: boolean;
  readonly source: NodeLife;
  readonly target: NodeLife;
  /** status.source and status.target; words of another attempt count for nothing. */
  readonly sourceSaid: Pick<MigrationSource, "attempt" | "state"> | undefined;
  readonly targetSaid: Pick<MigrationTarget, "attempt" | "state"> | undefined;
  /** The user's decision (spec.keep). It counts only where one is asked for. */
  readonly keep: "Source" | "Target" | undefined;
}

/**
 * write: compare-and-set of the record. needsDecision: condition NeedsDecision with this reason, nothing is written.
 * wait: somebody else's turn. settled: the record is final and both ends are through with the attempt.
 */
export type OperatorDecision =
  | { readonly do: "write"; readonly from: Handover; readonly to: Handover }
  | { readonly do: "needsDecision"; readonly reason: "SourceDied" | "TargetDied" | "BothDied" }
  | { readonly do: "wait" }
  | { readonly do: "settled" };

/** What the operator may do with the record of a move. Pure; the write is safe when repeated or late. */
export function decideOperator(view: OperatorView): OperatorDecision {
  const { record } = view;
  if (!record) return { do: "wait" };
  if (record.state === "Copying") return inCopying(view, record);
  if (record.state === "Handover") return inHandover(view, record);
  if (record.state === "Target") return inTarget(view, record);
  if (record.state === "Source") return givenUp(view, record);
  return view.source === "dead" || saidBy(view.sourceSaid, record) === "Released" ? { do: "settled" } : { do: "wait" };
}

/** The source runs, and nothing was promised to the target. */
function inCopying(view: OperatorView, record: Handover): OperatorDecision {
  const lost = view.source === "dead" || view.target === "dead" || saidBy(view.targetSaid, record) === "GivenUp";
  return view.giveUp || lost ? to(record, "Source") : { do: "wait" };
}

/**
 * The target may be complete, may even run. While the source's agent lives it settles this itself: it gives up, or makes it Target.
 */
function inHandover(view: OperatorView, record: Handover): OperatorDecision {
  if (view.source !== "dead" || view.target === "silent") return { do: "wait" };
  if (view.target === "alive" && saidBy(view.targetSaid, record) === "Running") return { do: "wait" }; // it makes it Done
  // A living target gives the guest back itself: only it knows that it has not run yet.
  if (view.keep === "Source" && view.target === "alive") return { do: "wait" };
  if (view.keep) return to(record, view.keep);
  return { do: "needsDecision", reason: view.target === "dead" ? "BothDied" : "SourceDied" };
}

/** The source has let go; a living target runs and makes it Done, or gives the guest back because it never ran. */
function inTarget(view: OperatorView, record: Handover): OperatorDecision {
  if (view.target === "dead") {
    if (view.keep === "Source") return to(record, "Source");
    // Kept at the target: the guest waits for its node, whose agent then says whether it had run. Nothing is destroyed on a guess.
    if (view.keep === "Target") return { do: "wait" };
    return { do: "needsDecision", reason: view.source === "dead" ? "BothDied" : "TargetDied" };
  }
  // Post-copy: the pages that the source still had are lost, so nothing is left to wait for.
  if (view.source === "dead" && saidBy(view.targetSaid, record) === "Running") return to(record, "Done");
  return { do: "wait" };
}

/** The next attempt begins only when nobody acts for this one any more. */
function givenUp(view: OperatorView, record: Handover): OperatorDecision {
  const source = saidBy(view.sourceSaid, record);
  const sourceThrough = view.source === "dead" || source === "GivenUp" || source === "Released";
  const targetThrough = view.target === "dead" || saidBy(view.targetSaid, record) === "Released";
  if (!sourceThrough || !targetThrough) return { do: "wait" };
  if (!view.retry || view.giveUp || view.source === "dead") return { do: "settled" };
  if (view.source === "silent") return { do: "wait" }; // nobody would send
  return { do: "write", from: record, to: { attempt: record.attempt + 1, state: "Copying" } };
}

function saidBy<S>(said: { attempt: number; state: S } | undefined, record: Handover): S | undefined {
  return said?.attempt === record.attempt ? said.state : undefined;
}

function to(record: Handover, state: HandoverState): OperatorDecision {
  return { do: "write", from: record, to: { attempt: record.attempt, state } };
}
