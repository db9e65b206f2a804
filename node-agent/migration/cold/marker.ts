/** The file by which the target knows that all disks are whole; the source has one to send. */
import { open } from "node:fs/promises";
import { join } from "node:path";
import type { GuestIdentity } from "../../types.ts";
import { MARKER_BYTES } from "./programs.ts";

export const MARKER_FILE = "marker.raw";

/** Makes it anew: empty where it is to be received. Returns its path. */
export async function makeMarker(directory: string, owner: GuestIdentity, content: Buffer | undefined): Promise<string> {
  const path = join(directory, MARKER_FILE);
  const handle = await open(path, "w", 0o600);
  try {
    await handle.writeFile(content ?? Buffer.alloc(MARKER_BYTES));
    await handle.chown(owner.uid, owner.gid);
    await handle.sync();
  } finally {
    await handle.close();
  }
  return path;
}
