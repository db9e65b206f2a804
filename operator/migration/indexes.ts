/** By what the cache of Migrations can be asked. */
import type { Migration } from "../../crds/migration.ts";
import { hasEnded, hasTurn } from "./attempt.ts";

const named = ({ status, spec }: Migration): string[] =>
  [status?.sourceNode, status?.targetNode, spec.target?.node].filter((node) => node !== undefined);

export const migrationIndexes = {
  /** `namespace/name` of the instance, ended ones too. */
  instance: ({ metadata, spec }: Migration): string[] => [`${metadata.namespace ?? ""}/${spec.instance}`],
  /** Nodes that one that has not ended has to do with. */
  node: (migration: Migration): string[] => (hasEnded(migration) ? [] : [...new Set(named(migration))]),
  /** "turn" gives those that have theirs. */
  turn: (migration: Migration): string[] => (hasTurn(migration) ? ["turn"] : []),
};
