/** Which Migrations that have ended are kept. Pure. */
import type { Migration } from "../../crds/migration.ts";
import { hasEnded } from "./attempt.ts";
import type { MigrationSettings } from "./settings.ts";

const endedAt = ({ status, metadata }: Migration): number => Date.parse(status?.endedAt ?? metadata.creationTimestamp);

/** A guest that has just come to run elsewhere needs the processors more than whoever tidies up. */
const TIDY_AFTER_MS = 10_000;
/** A timer counts no further. */
const LONGEST_MS = 24 * 3_600_000;

/**
 * Whether this Migration, which has ended, is to be deleted; else when to look again, in ms.
 * @param others all Migrations of its instance
 */
export function pruning(
  migration: Migration,
  others: readonly Migration[],
  { count, ageMs }: MigrationSettings["history"],
  now: number,
): "delete" | { afterMs: number } {
  const left = endedAt(migration) + ageMs - now;
  const newer = others.filter(
    (one) =>
      hasEnded(one) &&
      one.metadata.uid !== migration.metadata.uid &&
      (endedAt(one) > endedAt(migration) || (endedAt(one) === endedAt(migration) && one.metadata.uid > migration.metadata.uid)),
  );
  // There is one too many since the newer one ended that filled its place.
  const since = newer.map(endedAt).toSorted((a, b) => a - b)[Math.max(0, count - 1)];
  const dueMs = newer.length < count ? left : Math.min(left, (since ?? endedAt(migration)) + TIDY_AFTER_MS - now);
  return dueMs <= 0 ? "delete" : { afterMs: Math.min(dueMs, LONGEST_MS) };
}
