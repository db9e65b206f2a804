/** What is mounted where, from /proc/<pid>/mountinfo. */
import { readFile } from "node:fs/promises";
import { errorText, UserError } from "../errors.ts";
import { onNode } from "../node.ts";

export interface MountSeen {
  mountPoint: string;
  /** Directory within the file system that is shown there. */
  root: string;
  fsType: string;
  /** A device such as /dev/loop3, or a word. */
  source: string;
  /** Whether the file system itself is read-only, as one becomes that met an error. */
  readOnly: boolean;
}

const unescape = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));

/** All mounts, in order: of those at one place the last is the one seen. */
export function parseMountInfo(text: string): MountSeen[] {
  return text.split("\n").flatMap((line) => {
    const [left = "", right = ""] = line.split(" - ");
    const [, , , root, mountPoint] = left.split(" ");
    const [fsType, source, options = ""] = right.split(" ");
    if (root === undefined || mountPoint === undefined || fsType === undefined || source === undefined) return [];
    return [
      {
        mountPoint: unescape(mountPoint),
        root: unescape(root),
        fsType,
        source: unescape(source),
        readOnly: options.split(",").includes("ro"),
      },
    ];
  });
}

/** What is mounted at a place as a process sees it; undefined when it is a plain directory, or nothing. */
export async function mountAt(mountPoint: string, pid: number | "self"): Promise<MountSeen | undefined> {
  const text = await readFile(`/proc/${pid}/mountinfo`, "utf8");
  return parseMountInfo(text).findLast((mount) => mount.mountPoint === mountPoint);
}

/** Unmounts a pool; never lazily, which would take the disks out of sight of guests that still write to them. */
export async function unmountPool(pool: string, mountPoint: string): Promise<void> {
  try {
    await onNode("umount", [mountPoint], { deadlineMs: 60_000 });
  } catch (error) {
    if (!errorText(error).includes("busy")) throw error;
    throw new UserError("PoolBusy", `pool ${pool} cannot be unmounted, a process still has a file of it open`, { cause: error });
  }
}

/** For a pool that the node has and the agent does not see. */
export const notVisible = (pool: string): UserError =>
  new UserError(
    "PoolNotVisible",
    `pool ${pool} was mounted on the node but is not seen in the agent's pod; its volume for Drover's directory must be mounted with mountPropagation: Bidirectional`,
  );
