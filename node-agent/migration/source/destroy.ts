/** What is left of a guest that has left: its stopped QEMU, taps, the disks whose bytes were copied, the directory. */
import type { Migration } from "../../../crds/migration.ts";
import type { MoveNote } from "../notes.ts";
import type { SideParts } from "../parts.ts";

/** May be repeated. Shared disks stay: they are the guest's where it is now. */
export async function destroySource(parts: SideParts, note: MoveNote, migration: Migration, signal: AbortSignal): Promise<void> {
  const { driver, nics, pools } = parts;
  const { uid } = note.instance;
  // Side by side: nobody hears what this QEMU would still send.
  const ended = await Promise.allSettled([
    driver.stop(uid, { mode: "force", deadlineMs: 0 }, signal),
    nics.removeAll(uid, note.nics, signal),
  ]);
  for (const one of ended) if (one.status === "rejected") throw one.reason;
  for (const { name, sourcePool, copy } of migration.status?.disks ?? []) {
    if (copy) await pools.removeVolume({ pool: sourcePool, instanceUid: uid, disk: name });
  }
  await driver.forget(uid);
}
