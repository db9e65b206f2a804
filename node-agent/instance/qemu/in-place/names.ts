/** Names of a QEMU that takes over: its own until the other one is gone, then those of any guest. */
import { chown, mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { errorCode } from "../../../errors.ts";
import type { NodePaths } from "../../../node.ts";
import type { GuestIdentity } from "../../../types.ts";
import { HANDED } from "../command-line.ts";
import { LOCK, nextName, SOCKETS, STDERR } from "../launcher.ts";

/** The monitor first: whoever connects finds the one that runs the guest. */
const namesOf = (paths: NodePaths, instanceUid: string): string[] => [
  ...[HANDED.qmp, HANDED.qmp2, HANDED.guestAgent].map(({ name }) => join(paths.instanceVm(instanceUid), name)),
  ...[LOCK, STDERR].map((name) => join(paths.instance(instanceUid), name)),
];

export const socketsOf = (paths: NodePaths, instanceUid: string): string => join(paths.instanceVm(instanceUid), SOCKETS);

/** Gives the new one the names. May be repeated. */
export async function takeNames(paths: NodePaths, instanceUid: string): Promise<void> {
  for (const name of namesOf(paths, instanceUid)) {
    try {
      await rename(nextName(name), name);
    } catch (error) {
      if (errorCode(error) !== "ENOENT") throw error;
    }
  }
}

/** Takes away what only one that takes over has. May be repeated. */
export async function removeNames(paths: NodePaths, instanceUid: string): Promise<void> {
  for (const name of namesOf(paths, instanceUid)) await rm(nextName(name), { force: true });
  await removeSockets(paths, instanceUid);
}

/** Where both QEMUs meet: nobody but the guest's own user (and root) gets in, for what goes by it opens the guest's memory. */
export async function makeSockets(paths: NodePaths, instanceUid: string, { uid, gid }: GuestIdentity): Promise<void> {
  await removeSockets(paths, instanceUid);
  const directory = socketsOf(paths, instanceUid);
  await mkdir(directory, { mode: 0o700 });
  await chown(directory, uid, gid);
}

export const removeSockets = (paths: NodePaths, instanceUid: string): Promise<void> =>
  rm(socketsOf(paths, instanceUid), { recursive: true, force: true });
