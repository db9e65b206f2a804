/** The disks of a guest that comes: empty ones where its bytes are copied, the shared ones where they are not. */
import type { Instance } from "../../../crds/instance.ts";
import type { MigrationDisk } from "../../../crds/migration.ts";
import { UserError } from "../../errors.ts";
import type { MachineDisk } from "../../instance/driver.ts";
import type { Pools } from "../../pool/index.ts";
import type { GuestIdentity } from "../../types.ts";

/** Makes what is missing; repeatable. Throws UserError with the pool's reason. */
export async function ensureDisks(
  pools: Pick<Pools, "ensureVolume">,
  instance: Instance,
  disks: readonly MigrationDisk[],
  identity: GuestIdentity,
  signal: AbortSignal,
): Promise<MachineDisk[]> {
  const found: MachineDisk[] = [];
  const instanceUid = instance.metadata.uid;
  for (const { name, targetPool: pool, sizeBytes, copy } of disks) {
    if (copy) {
      const volume = await pools.ensureVolume({ pool, instanceUid, disk: name, sizeBytes, ...identity }, signal);
      if (volume.sizeBytes !== sizeBytes) {
        const message = `disk ${name} in pool ${pool} has ${volume.sizeBytes} bytes where ${sizeBytes} are to be copied`;
        throw new UserError("DiskSizeDiffers", message);
      }
      found.push({ id: name, pool, path: volume.path });
    } else {
      // Made this node's guest's own: the source's QEMU has it open, and needs no right to open it again.
      const volume = await pools.ensureVolume({ pool, instanceUid, disk: name, sizeBytes, ...identity, mustExist: true }, signal);
      found.push({ id: name, pool, path: volume.path });
    }
  }
  return found;
}
