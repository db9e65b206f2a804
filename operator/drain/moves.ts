/** The Migrations that a drain makes, and what those of an instance say. Pure. */
import { createHash } from "node:crypto";
import type { Instance } from "../../crds/instance.ts";
import type { Migration } from "../../crds/migration.ts";
import { API_VERSION } from "../../crds/names.ts";
import { hasTurn } from "../migration/attempt.ts";
import { isInPlace } from "../migration/in-place/in-place.ts";

/** Label of the Migrations that a drain made; its value is the uid of the claim that was asked to go. */
const DRAIN_LABEL = "drover.dev/drain";

export const isOver = ({ status }: Migration): boolean =>
  status?.phase === "Succeeded" || status?.phase === "Failed" || status?.phase === "Cancelled";

/** A move that brings the instance away, or shall. An update in place does not; one that has not begun lets a drain's move go first. */
export const isUnderWay = (move: Migration): boolean => !isOver(move) && !isInPlace(move);

/** An update in place that has its turn: it takes seconds, and nothing can be moved meanwhile. */
export const isUpdating = (move: Migration): boolean => isInPlace(move) && hasTurn(move);

const endedAt = ({ status, metadata }: Migration): number => Date.parse(status?.endedAt ?? metadata.creationTimestamp ?? "");

/** Moves that a drain made for this claim and that did not come about, the last one first. */
export const failedMoves = (moves: readonly Migration[], claimUid: string): Migration[] =>
  moves
    .filter(({ metadata, spec }) => spec.priority === "Drain" && metadata.labels?.[DRAIN_LABEL] === claimUid)
    .filter((move) => isOver(move) && move.status?.phase !== "Succeeded")
    .sort((a, b) => endedAt(b) - endedAt(a));

export const sinceEndMs = (move: Migration, now: number): number => Math.max(0, now - endedAt(move));

/**
 * The Migration that moves an instance out of this claim. Its name follows from the claim and from the move that failed before, so
 * that a repeat makes no second one.
 */
export function drainMigration(instance: Instance, claimUid: string, failed: readonly Migration[]) {
  const { name, namespace, uid } = instance.metadata;
  const which = createHash("sha256")
    .update(`${claimUid}/${failed[0]?.metadata.uid ?? ""}`)
    .digest("hex")
    .slice(0, 8);
  return {
    apiVersion: API_VERSION,
    kind: "Migration",
    metadata: {
      name: `drain-${name}-${which}`,
      namespace,
      labels: { [DRAIN_LABEL]: claimUid, "app.kubernetes.io/managed-by": "drover" },
      ownerReferences: [{ apiVersion: instance.apiVersion, kind: instance.kind, name, uid }],
    },
    spec: { instance: name, priority: "Drain" as const },
  };
}

const words = ({ status }: Migration): string => {
  const why = status?.conditions?.find(({ status: is, reason }) => is === "False" && reason === status.reason)?.message;
  return why !== undefined && why !== "" ? why : (status?.reason ?? "");
};

/** What a move does now, without figures that change all the time. */
export function moveWords(move: Migration): string {
  const { name } = move.metadata;
  const phase = move.status?.phase ?? "Pending";
  if (phase !== "Pending") return `Migration ${name} moves it to ${move.status?.targetNode ?? "another node"}`;
  const why = words(move);
  return `Migration ${name}${why === "" ? " waits for its turn" : `: ${why}`}`;
}

/** How far a move is; empty before there is anything to tell. */
export function moveProgress({ status }: Migration): string {
  if (status?.phase === undefined || status.phase === "Pending") return "";
  return [status.phase, status.source?.progress].filter((part) => part !== undefined && part !== "").join(" ");
}

export const failureWords = (move: Migration): string => {
  const how = move.status?.phase === "Cancelled" ? "was cancelled" : "failed";
  const why = words(move);
  return `Migration ${move.metadata.name} ${how}${why === "" ? "" : `: ${why}`}`;
};
