/** What a running guest's QEMU sees below its /disks: see view.c. */
import { dirname, join } from "node:path";
import { CommandError, UserError } from "../../../errors.ts";
import { onNode, type NodePaths } from "../../../node.ts";

export interface Viewer {
  pid: number;
  /** The guest's user. */
  uid: number;
  /** Of the runtime whose program is used. */
  runtimeVersion: string;
}

const DEADLINE_MS = 10_000;

/** Makes the directory of a volume visible. May be repeated. Throws UserError with what the node lacks. */
export async function addToView(paths: NodePaths, viewer: Viewer, volume: { pool: string; path: string }): Promise<void> {
  try {
    await view(paths, viewer, ["--add", `${volume.pool}=${dirname(volume.path)}`]);
  } catch (cause) {
    if (!(cause instanceof CommandError)) throw cause;
    throw new UserError("DiskNotVisible", `the guest's QEMU cannot be given pool ${volume.pool}: ${cause.message}`, { cause });
  }
}

/** Takes a pool away. May be repeated. */
export const removeFromView = (paths: NodePaths, viewer: Viewer, pool: string): Promise<void> =>
  view(paths, viewer, ["--remove", pool]);

async function view(paths: NodePaths, { pid, uid, runtimeVersion }: Viewer, args: string[]): Promise<void> {
  const program = join(paths.runtime(runtimeVersion), "view");
  await onNode(program, ["--pid", String(pid), "--uid", String(uid), ...args], { deadlineMs: DEADLINE_MS });
}
