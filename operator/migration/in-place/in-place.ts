/** What is different about an update in place: nothing leaves its node, there is one claim and one agent. Pure. */
import type { Migration } from "../../../crds/migration.ts";

export const isInPlace = ({ spec }: Pick<Migration, "spec">): boolean => spec.mode === "InPlace";

/** Reasons, the operator's own and agents', for which a guest's QEMU cannot be replaced: no fault of the new one. */
export const CANNOT: ReadonlySet<string> = new Set([
  "UpdateBlocked",
  "DeviceCannotMove",
  "MachineTypeUnknown",
  "CpuModelMissing",
  "NoRoomInClaim",
  "MemoryLimit",
  "GuestNotRunning",
  "QEMUTooOld",
]);
