/** Which events a change of status is worth. */
import type { OwnStatus } from "./status.ts";

export interface Transition {
  type: "Normal" | "Warning";
  reason: string;
  /** What the operator did or saw. */
  action: string;
  note: string;
}

const message = (status: OwnStatus): string => status.conditions?.find(({ type }) => type === "Ready")?.message ?? "";

/**
 * The event that tells of this change; undefined when it is not worth one. Pure.
 * Pending -> Starting tells nothing: an instance that comes up as it should costs one event, the one that says that it runs.
 */
export function transitionEvent(before: OwnStatus, after: OwnStatus): Transition | undefined {
  const samePhase = before.phase === after.phase;
  const where = after.nodeName === undefined ? "" : ` on node ${after.nodeName}`;
  switch (after.phase) {
    case "Running":
      // The end of a move is told by the move.
      if (samePhase || before.phase === "Migrating") return undefined;
      return {
        type: "Normal",
        reason: "Running",
        action: "Follow",
        note: `it runs${where}${after.ip === undefined ? "" : `, as ${after.ip}`}`,
      };
    case "Migrating":
      return samePhase ? undefined : { type: "Normal", reason: "Migrating", action: "Move", note: message(after) };
    case "Stopped":
      if (samePhase || before.phase === undefined) return undefined;
      return { type: "Normal", reason: "Stopped", action: "Follow", note: message(after) };
    case "Stopping":
      if (samePhase && before.reason === after.reason) return undefined;
      return {
        type: after.reason?.startsWith("Claim") === true && after.reason !== "ClaimEnding" ? "Warning" : "Normal",
        reason: after.reason ?? "Stopping",
        action: "Stop",
        note: message(after),
      };
    case "Starting":
      if (samePhase || before.phase === undefined || before.phase === "Pending") return undefined;
      return { type: "Normal", reason: "Starting", action: "Follow", note: `it is started${where}: ${message(after)}` };
    case "Error":
    case "Unknown":
      // That the node is back, and its agent about to be, is no news to be alarmed at.
      if (samePhase && (before.reason === after.reason || after.reason === "AgentNotBack")) return undefined;
      return { type: "Warning", reason: after.reason ?? after.phase, action: "Follow", note: message(after) };
    case "Pending":
      if (after.reason === "Scheduling" || (samePhase && before.reason === after.reason)) return undefined;
      return {
        // A pool that was just made is published in a moment: nothing is wrong.
        type: after.reason === "WaitingForPool" ? "Normal" : "Warning",
        reason: after.reason ?? "Pending",
        action: "Place",
        note: message(after),
      };
    case undefined:
    default:
      return undefined;
  }
}
