/** By what the cache of Migrations can be asked. */
import type { Migration } from "../../crds/migration.ts";
import { hasEnded, hasTurn } from "./attempt.ts";
import { isInPlace } from "./in-place/in-place.ts";

const named = ({ status, spec }: Migration): string[] =>
  [status?.sourceNode, status?.targetNode, spec.target?.node].filter((node) => node !== undefined);

export const migrationIndexes = {
  /** `namespace/name` of the instance, ended ones too. */
  instance: ({ metadata, spec }: Migration): string[] => [`${metadata.namespace ?? ""}/${spec.instance}`],
  /** Nodes that one that has not ended has to do with. */
  node: (migration: Migration): string[] => (hasEnded(migration) ? [] : [...new Set(named(migration))]),
  /** "move" and "update" give those that have theirs: moves, and updates in place. */
  turn: (migration: Migration): string[] => (hasTurn(migration) ? [isInPlace(migration) ? "update" : "move"] : []),
};
