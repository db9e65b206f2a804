/** Which disk a move that stays on its node takes to another pool. */
import type { Migration } from "../../../crds/migration.ts";
import type { MoveNote } from "../notes.ts";

export type Goes = NonNullable<MoveNote["goes"]>;

/** Which disk goes where, as the operator has it; undefined: there is no such disk. Pure. */
export function goesOf({ status }: Migration): Goes | undefined {
  const [disk, another] = (status?.disks ?? []).filter(({ copy }) => copy);
  const claimUid = status?.targetClaim?.uid;
  if (disk === undefined || another !== undefined || claimUid === undefined || disk.sourcePool === disk.targetPool)
    return undefined;
  return { disk: disk.name, sizeBytes: disk.sizeBytes, from: disk.sourcePool, to: disk.targetPool, claimUid };
}
