/** What is different about an update in place: nothing leaves its node, there is one claim and one agent. Pure. */
import type { Migration } from "../../../crds/migration.ts";

export const isInPlace = ({ spec }: Pick<Migration, "spec">): boolean => spec.mode === "InPlace";

/** Reasons for which a guest's QEMU cannot be replaced, whatever the new one is like: no fault of the new one. */
export const CANNOT: ReadonlySet<string> = new Set([
  "UpdateBlocked",
  "MachineTypeUnknown",
  "NoRoomInClaim",
  "QEMUTooOld",
  "DeviceCannotMove",
]);
