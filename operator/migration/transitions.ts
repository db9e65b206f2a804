/** Which events a change of a Migration's status is worth. */
import { findCondition } from "../../kube/index.ts";
import type { OwnStatus } from "./plan.ts";

export interface Told {
  type: "Normal" | "Warning";
  reason: string;
  action: string;
  note: string;
}

const ready = (status: OwnStatus) => findCondition(status.conditions, "Ready");
const isOn = (status: OwnStatus, type: string): boolean => findCondition(status.conditions, type)?.status === "True";
const said = (status: OwnStatus, type: string): string => findCondition(status.conditions, type)?.message ?? "";

const ACTIONS = {
  Preparing: "Prepare",
  CopyingDisk: "CopyDisk",
  CopyingMemory: "CopyMemory",
  SwitchingOver: "SwitchOver",
};

/** What a wait that is the ordinary course of things is called; any other is a warning. */
const ORDINARY: ReadonlySet<string> = new Set([
  "Scheduling",
  "HolderStarting",
  "WaitingForSlot",
  "WaitingForMigration",
  "InstanceNotRunning",
  "BackingOff",
  "Cancelled",
  "InstanceStopped",
  "InstanceDeleted",
]);
/** Waits that take so little that nobody need be told. */
const SHORT: ReadonlySet<string> = new Set(["Scheduling", "HolderStarting", "BackingOff", "Preparing"]);

function phaseEvent(before: OwnStatus, after: OwnStatus): Told[] {
  const note = ready(after)?.message ?? "";
  const reason = after.reason ?? "";
  switch (after.phase) {
    case "Succeeded":
      return before.phase === "Succeeded" ? [] : [{ type: "Normal", reason: "Succeeded", action: "Move", note }];
    case "Failed":
      return before.phase === "Failed" ? [] : [{ type: "Warning", reason: "Failed", action: "Move", note }];
    case "Cancelled":
      return before.phase === "Cancelled" ? [] : [{ type: "Normal", reason: "Cancelled", action: "Cancel", note }];
    case "Pending": {
      if (before.reason === reason || SHORT.has(reason) || reason === "GivingUp") return [];
      const type = ORDINARY.has(reason) ? "Normal" : "Warning";
      return [{ type, reason, action: "Wait", note }];
    }
    case "Preparing":
    case "CopyingDisk":
    case "CopyingMemory":
    case "SwitchingOver":
      if (before.phase === after.phase) return [];
      return [{ type: "Normal", reason: after.phase, action: ACTIONS[after.phase], note }];
    case undefined:
    default:
      return [];
  }
}

/** The events that tell of this change, in order. Pure. */
export function moveEvents(before: OwnStatus, after: OwnStatus): Told[] {
  const warnings = ["Stalled", "NeedsDecision"]
    .filter((type) => isOn(after, type) && !isOn(before, type))
    .map((type): Told => ({ type: "Warning", reason: type, action: "Watch", note: said(after, type) }));
  return [...phaseEvent(before, after), ...warnings];
}
