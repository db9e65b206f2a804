/** What this node has to do with a Migration. Pure. */
import type { Instance } from "../../crds/instance.ts";
import { disksOf } from "../../crds/disks.ts";
import type { Handover, Migration } from "../../crds/migration.ts";
import type { MoveNote, Role } from "./notes.ts";
import type { Said } from "./report.ts";

export type SidePlan = { do: "nothing" } | { do: "begin"; role: Role; attempt: number } | { do: "say"; said: Said };

const nothing: SidePlan = { do: "nothing" };

/**
 * `note`: of this instance, whatever move it speaks of. While there is one nothing begins: what it speaks of comes first. Without one
 * nothing of an attempt was ever done here, or all of it is undone.
 */
export function planSide(migration: Migration, node: string, note: MoveNote | undefined): SidePlan {
  const { status } = migration;
  const { handover, sourceNode, targetNode, instanceUid } = status ?? {};
  if (note !== undefined || instanceUid === undefined || handover === undefined) return nothing;
  const { attempt, state } = handover;
  const isLocal = sourceNode === node && targetNode === node;
  const role = migration.spec.mode === "InPlace" ? "update" : "local";
  if (isLocal && state !== "Source" && state !== "Done") return { do: "begin", role, attempt };
  const plan = sourceNode === node ? planSource(migration, handover) : nothing;
  // One that is both says one thing after the other.
  return plan.do === "nothing" && targetNode === node ? planTarget(migration, handover) : plan;
}

function planSource({ status }: Migration, { attempt, state }: Handover): SidePlan {
  const said = status?.source?.attempt === attempt ? status.source : undefined;
  if (state === "Source") {
    if (said?.state === "GivenUp") return nothing;
    return { do: "say", said: { role: "source", words: { ...said, attempt, state: "GivenUp" } } };
  }
  if (state === "Done") {
    return said?.state === "Released"
      ? nothing
      : { do: "say", said: { role: "source", words: { ...said, attempt, state: "Released" } } };
  }
  return { do: "begin", role: "source", attempt };
}

function planTarget({ status }: Migration, { attempt, state }: Handover): SidePlan {
  const said = status?.target?.attempt === attempt ? status.target : undefined;
  if (state === "Source") {
    return said?.state === "Released"
      ? nothing
      : { do: "say", said: { role: "target", words: { ...said, attempt, state: "Released" } } };
  }
  if (state === "Done") {
    return said?.state === "Running" ? nothing : { do: "say", said: { role: "target", words: { attempt, state: "Running" } } };
  }
  return { do: "begin", role: "target", attempt };
}

/**
 * The record of a Migration that was deleted by force, as far as what is left tells; undefined: nobody can tell. `instance`: as the
 * API server has it, undefined when it is gone.
 */
export function verdictOfVanished(note: MoveNote, instance: Instance | undefined, node: string): "Source" | "Done" | undefined {
  const { role, mark, goes } = note;
  const at = instance?.status?.nodeName;
  // Both processes are one node's: its note alone tells.
  if (role === "update") return mark === "Switched" ? "Done" : "Source";
  if (role === "local") {
    if (mark !== "Pivoting") return "Source";
    const there = instance === undefined || disksOf(instance).some(({ name, pool }) => name === goes?.disk && pool === goes.to);
    return there ? "Done" : undefined;
  }
  if (role === "source") {
    // Only a source that is gone, or a record that nobody can write any more, lets the target run.
    if (mark !== "Gone") return "Source";
    return instance === undefined || (at !== undefined && at !== node) ? "Done" : undefined;
  }
  if (mark !== "Ran") return at === node ? undefined : "Source";
  // It has run here: it is this node's guest, or nobody's.
  return instance === undefined || at === node ? "Done" : undefined;
}
