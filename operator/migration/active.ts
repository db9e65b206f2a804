/** What an instance must know of the Migrations that are about it. Pure. */
import type { PastMigration } from "../../crds/instance.ts";
import type { HandoverState, Migration } from "../../crds/migration.ts";
import { findCondition } from "../../kube/index.ts";
import type { Problem } from "../instance/facts.ts";
import { isInPlace } from "./in-place/in-place.ts";
import { endOf, hasEnded, hasTurn, recordOf, sourceOf } from "./attempt.ts";

/** The move of an instance that has its turn. */
export interface ActiveMove {
  name: string;
  uid: string;
  /** The instance does not run: only its disks move. */
  cold: boolean;
  /** Its QEMU is replaced where it is: node, claim and disks stay. */
  inPlace: boolean;
  /** Who owns the guest; undefined while no agent has been told of the move. */
  state: HandoverState | undefined;
  sourceNode: string;
  targetNode: string;
  sourceClaim: { name: string; uid: string } | undefined;
  targetClaim: { name: string; uid: string | undefined };
  /** The source's agent says that nothing is left there. */
  released: boolean;
  /** Why the guest runs nowhere: a node died at the one moment when nobody can tell which copy is newer. */
  undecided: Problem | undefined;
  /** Pools of the disks at the target. */
  disks: { name: string; pool: string }[];
}

/** The move of this instance that has its turn; undefined where there is none. */
export function activeMove(migrations: readonly Migration[], instanceUid: string): ActiveMove | undefined {
  const migration = migrations.find((one) => hasTurn(one) && one.status?.instanceUid === instanceUid);
  const status = migration?.status;
  if (migration === undefined || status?.targetClaim === undefined) return undefined;
  const { sourceClaim, targetClaim } = status;
  return {
    name: migration.metadata.name,
    uid: migration.metadata.uid,
    cold: migration.spec.mode === "Cold",
    inPlace: isInPlace(migration),
    state: recordOf(migration)?.state,
    sourceNode: status.sourceNode ?? "",
    targetNode: status.targetNode ?? "",
    sourceClaim: sourceClaim?.uid === undefined ? undefined : { name: sourceClaim.name, uid: sourceClaim.uid },
    targetClaim: { name: targetClaim.name, uid: targetClaim.uid },
    released: sourceOf(migration)?.state === "Released",
    undecided: undecidedOf(migration),
    disks: (status.disks ?? []).map(({ name, targetPool }) => ({ name, pool: targetPool })),
  };
}

function undecidedOf({ metadata, status }: Migration): Problem | undefined {
  const reason = status?.reason;
  if (reason !== "NeedsDecision" && reason !== "WaitingForNode") return undefined;
  const ready = findCondition(status?.conditions, "Ready");
  return { reason, message: `Migration ${metadata.name}: ${ready?.message ?? reason}` };
}

/** Whether the agents are at it: the guest is theirs, and nobody else stops, starts or replaces anything of it. */
export const isMoving = (move: ActiveMove | undefined): boolean =>
  move?.state === "Copying" || move?.state === "Handover" || move?.state === "Target";

/** The node that has the disks of an instance that does not run: `nodeName`, until they have arrived elsewhere. */
export const nodeOfDisks = (move: ActiveMove | undefined, nodeName: string | undefined): string | undefined =>
  move?.cold === true && move.state === "Done" ? move.targetNode : nodeName;

/** The nodes that may have the instance's ports: both, with the source first, while either may run the guest. */
export function chassisOf(move: ActiveMove | undefined, nodeName: string): string[] {
  return isMoving(move) && move !== undefined ? [...new Set([move.sourceNode, move.targetNode])] : [nodeName];
}

/** Shown of an instance; the newest is `lastMigration`, the others follow it. */
const EARLIER = 4;

function pastOf(migration: Migration): PastMigration | undefined {
  const phase = endOf(migration);
  const { status, metadata } = migration;
  if (phase === undefined || status?.endedAt === undefined) return undefined;
  return {
    name: metadata.name,
    uid: metadata.uid,
    phase,
    reason: status.reason,
    from: status.sourceNode,
    to: status.targetNode,
    pause: status.source?.pause,
    endedAt: status.endedAt,
  };
}

export interface Past {
  lastMigration?: PastMigration | undefined;
  earlierMigrations?: PastMigration[] | undefined;
}

const listOf = ({ lastMigration, earlierMigrations }: Past): PastMigration[] =>
  lastMigration === undefined ? [] : [lastMigration, ...(earlierMigrations ?? [])];

/** Whether the instance knows of this Migration's end, or has forgotten it for newer ones. */
export function isNoted(past: Past, { metadata, status }: Migration): boolean {
  const known = listOf(past);
  const oldest = known.at(-1);
  return (
    known.some(({ uid }) => uid === metadata.uid) ||
    (known.length > EARLIER && oldest !== undefined && (status?.endedAt ?? "") < oldest.endedAt)
  );
}

/** The past of an instance with the Migrations in it that have ended since. */
export function pastMigrations(past: Past, migrations: readonly Migration[], instanceUid: string): Past {
  const fresh = migrations
    .filter((one) => hasEnded(one) && one.status?.instanceUid === instanceUid && !isNoted(past, one))
    .map(pastOf)
    .filter((one) => one !== undefined);
  if (fresh.length === 0) return past;
  const all = [...listOf(past), ...fresh].sort((a, b) => b.endedAt.localeCompare(a.endedAt)).slice(0, EARLIER + 1);
  const [lastMigration, ...earlierMigrations] = all;
  return { lastMigration, ...(earlierMigrations.length === 0 ? {} : { earlierMigrations }) };
}
