/** The one place where a Migration's status is computed: all of it but what the agents say, and who owns the guest. */
import type { Condition } from "../../crds/schema.ts";
import type { Migration, MigrationStatus } from "../../crds/migration.ts";
import { findCondition, setCondition } from "../../kube/index.ts";
import { endOf, recordOf, sourceOf } from "./attempt.ts";
import { isCold } from "./cold.ts";
import { isInPlace } from "./in-place/in-place.ts";
import type { MovePlan, OwnStatus } from "./plan.ts";

export type MovePhase = NonNullable<MigrationStatus["phase"]>;

/** The part of a status that is the operator's. */
export function ownStatus(status: MigrationStatus | undefined): OwnStatus {
  const { handover: _, source: __, target: ___, ...own } = status ?? {};
  return own;
}

/** Where a move is, in one word. Pure. */
export function phaseOf(migration: Migration, plan: Pick<MovePlan, "step" | "end">): MovePhase {
  const end = plan.end ?? endOf(migration);
  if (end !== undefined) return end;
  if (plan.step.do === "begin") return "Preparing";
  const said = sourceOf(migration)?.state;
  const record = recordOf(migration);
  if (record === undefined) return "Pending";
  switch (record.state) {
    case "Copying":
      // Nothing is copied: the memory stays where it is.
      if (isInPlace(migration)) return "Preparing";
      if (said === "CopyingDisk") return "CopyingDisk";
      if (said !== "CopyingMemory" && said !== "SwitchingOver") return "Preparing";
      return isCold(migration) ? "CopyingDisk" : "CopyingMemory";
    case "Handover":
    case "Target":
    case "Done":
      return "SwitchingOver";
    case "Source":
    default:
      return "Pending";
  }
}

type Verdict = Pick<Condition, "status" | "reason" | "message">;

/** One that was never True is not worth a line. */
function rare(
  migration: Migration,
  type: string,
  problem: Pick<Condition, "reason" | "message"> | undefined,
): [string, Verdict][] {
  const before = findCondition(migration.status?.conditions, type);
  if (problem === undefined)
    return before === undefined ? [] : [[type, { status: "False", reason: "Over", message: "it is so no more" }]];
  // Its figures are those of the moment when it was found; the present ones stand in status.source.
  return [[type, before?.status === "True" ? before : { status: "True", ...problem }]];
}

function verdicts(migration: Migration, plan: MovePlan): [string, Verdict][] {
  const { reason, message, end, progressing } = plan;
  const stalled = end === undefined ? sourceOf(migration)?.stalled : undefined;
  const before = findCondition(migration.status?.conditions, "Progressing");
  return [
    ["Ready", { status: end === "Succeeded" ? "True" : "False", reason, message }],
    ["Progressing", progressing ?? before ?? { status: "False", reason, message }],
    ...rare(migration, "Stalled", stalled === undefined ? undefined : { reason: "MemoryDoesNotConverge", message: stalled }),
    ...rare(migration, "NeedsDecision", plan.needsDecision),
  ];
}

/** The status that the operator writes. Pure: the same facts give the same status. */
export function computeStatus(migration: Migration, plan: MovePlan, now: Date): OwnStatus {
  const own = ownStatus(migration.status);
  if (plan.step.do === "nothing") return own;
  const observedGeneration = migration.metadata.generation;
  const conditions = verdicts(migration, plan).reduce(
    (list, [type, { status, reason, message }]) => setCondition(list, { type, status, reason, message, observedGeneration }, now),
    own.conditions ?? [],
  );
  return { ...own, ...plan.set, observedGeneration, phase: phaseOf(migration, plan), reason: plan.reason, conditions };
}
