/** By what the cache of Migrations can be asked. */
import type { Migration } from "../../crds/migration.ts";
import { ROLLOUT_LABEL } from "../../crds/names.ts";
import { endOf, hasEnded, hasTurn } from "./attempt.ts";
import { isInPlace } from "./in-place/in-place.ts";

const named = ({ status, spec }: Migration): string[] =>
  [status?.sourceNode, status?.targetNode, spec.target?.node].filter((node) => node !== undefined);

export const migrationIndexes = {
  /** `namespace/name` of the instance, ended ones too. */
  instance: ({ metadata, spec }: Migration): string[] => [`${metadata.namespace ?? ""}/${spec.instance}`],
  /** Nodes that one that has not ended has to do with. */
  node: (migration: Migration): string[] => (hasEnded(migration) ? [] : [...new Set(named(migration))]),
  /** Those that a roll-out made and that have not ended, or failed: `<Rollout>/active`, `<Rollout>/failed`. */
  rollout: (migration: Migration): string[] => {
    const rollout = migration.metadata.labels?.[ROLLOUT_LABEL];
    const end = endOf(migration);
    if (rollout === undefined || (end !== undefined && end !== "Failed")) return [];
    return [`${rollout}/${end === undefined ? "active" : "failed"}`];
  },
  /** "move" and "update" give those that have theirs: moves, and updates in place. */
  turn: (migration: Migration): string[] => (hasTurn(migration) ? [isInPlace(migration) ? "update" : "move"] : []),
};
