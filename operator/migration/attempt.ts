/** What a Migration's own words mean: which attempt it is in, whether it has begun, has its turn, or has ended. All pure. */
import { targetClaimName } from "../../crds/names.ts";
import type { Handover, Migration, MigrationSource, MigrationTarget } from "../../crds/migration.ts";
import type { Urgency } from "./turns.ts";

/** The attempt that is under way, or comes next; counted from 1. */
export const attemptOf = ({ status }: Migration): number => (status?.retries ?? 0) + 1;

/** Who owns the guest in the present attempt; undefined until that attempt has begun. */
export function recordOf(migration: Migration): Handover | undefined {
  const record = migration.status?.handover;
  return record?.attempt === attemptOf(migration) ? record : undefined;
}

/** What the source's agent says of the present attempt; words of another one are old news. */
export function sourceOf(migration: Migration): MigrationSource | undefined {
  const said = migration.status?.source;
  return said?.attempt === attemptOf(migration) ? said : undefined;
}

/** What the target's agent says of the present attempt. */
export function targetOf(migration: Migration): MigrationTarget | undefined {
  const said = migration.status?.target;
  return said?.attempt === attemptOf(migration) ? said : undefined;
}

const ENDS = ["Succeeded", "Failed", "Cancelled"] as const;
export type EndPhase = (typeof ENDS)[number];

/** How it ended; undefined while it has not. */
export const endOf = ({ status }: Migration): EndPhase | undefined => ENDS.find((phase) => phase === status?.phase);

export const hasEnded = (migration: Migration): boolean => endOf(migration) !== undefined;

/** Whether it has its turn: a claim at the target is there, or about to be made. */
export const hasTurn = (migration: Migration): boolean => !hasEnded(migration) && migration.status?.targetClaim !== undefined;

/** Whether the user wants it no more: by spec.cancel, or by deleting it. */
export const isUnwanted = ({ metadata, spec }: Migration): boolean =>
  spec.cancel === true || metadata.deletionTimestamp !== undefined;

/** Name of the claim pod that the present attempt moves to. */
export const claimNameOf = (migration: Migration): string =>
  targetClaimName(migration.spec.instance, migration.metadata.uid, attemptOf(migration));

type Priority = NonNullable<Migration["spec"]["priority"]>;

const RANK: Record<Priority, number> = { Drain: 0, User: 1, Rebalance: 2 };

/** How urgent it is, the less the sooner: by priority, then by age. */
export const urgencyOf = ({ metadata, spec }: Migration): Urgency => ({
  rank: RANK[spec.priority ?? "User"],
  createdAt: Date.parse(metadata.creationTimestamp),
});

/** Whose turn comes first; the same for everyone who asks. */
function compareUrgency(a: Migration, b: Migration): number {
  const [first, second] = [urgencyOf(a), urgencyOf(b)];
  return first.rank - second.rank || first.createdAt - second.createdAt || a.metadata.uid.localeCompare(b.metadata.uid);
}

/** The other Migration of the same instance that comes before this one: it has its turn, or is the more urgent. */
export function comesBefore(migration: Migration, others: readonly Migration[]): Migration | undefined {
  const rivals = others.filter((one) => one.metadata.uid !== migration.metadata.uid && !hasEnded(one));
  const begun = rivals.find(hasTurn);
  if (hasTurn(migration)) return begun !== undefined && compareUrgency(begun, migration) < 0 ? begun : undefined;
  return (
    begun ??
    rivals
      .filter((one) => !isUnwanted(one))
      .sort(compareUrgency)
      .find((one) => compareUrgency(one, migration) < 0)
  );
}
