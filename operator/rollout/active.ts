/** The updates of a roll-out that have not ended. Pure. */
import type { Migration } from "../../crds/migration.ts";
import { keyOf } from "../../kube/index.ts";
import { hasEnded, hasTurn } from "../migration/attempt.ts";
import type { ActiveUpdate } from "./plan.ts";
import { nameOf } from "./update.ts";

/** One of the Migrations that a roll-out has made. */
export interface Made {
  /** As the cache shows it; undefined: not yet, or it is gone. */
  cached: Migration | undefined;
  /** As this process wrote it, where the cache does not show that yet. */
  written: Migration | undefined;
}

/**
 * One counts until the cache shows its end: what else is asked of the cache, such as who has failed, knows no more. Where its end was written
 * there is nothing to take back, though.
 * @param nodeOf the node on which a Migration that does not say so takes place
 */
export function activeUpdates(made: readonly Made[], nodeOf: (migration: Migration) => string): ActiveUpdate[] {
  const active = new Map<string, ActiveUpdate>();
  for (const { cached, written } of made) {
    const one = written ?? cached;
    if (one === undefined || (cached !== undefined && hasEnded(cached))) continue;
    const begun = hasTurn(one) || hasEnded(one);
    active.set(nameOf(one), { key: keyOf(one), node: one.status?.sourceNode ?? nodeOf(one), begun });
  }
  return [...active.values()];
}
