/** Loop devices of a backing file, made and found in the node's own mount namespace. */
import { onNode } from "../node.ts";

export interface LoopSeen {
  device: string;
  sizeBytes: number;
  /** Whether the kernel frees it by itself at the last unmount. */
  autoclear: boolean;
}

interface LoopRow {
  name: string;
  autoclear: boolean;
  offset: number;
  sizelimit: number;
}

/**
 * Loops whose backing file is this one, matched by device and inode: names differ between mount namespaces, and another
 * node of the same machine has files of the same name.
 */
export async function loopsOf(file: string): Promise<LoopSeen[]> {
  const { stdout } = await onNode("losetup", ["--json", "--list", "-j", file, "-O", "NAME,AUTOCLEAR,OFFSET,SIZELIMIT"]);
  if (stdout.trim() === "") return [];
  const rows = (JSON.parse(stdout) as { loopdevices?: LoopRow[] }).loopdevices ?? [];
  const whole = rows.filter((row) => row.offset === 0 && row.sizelimit === 0);
  return Promise.all(
    whole.map(async (row) => ({ device: row.name, autoclear: row.autoclear, sizeBytes: await deviceSize(row.name) })),
  );
}

async function deviceSize(device: string): Promise<number> {
  const { stdout } = await onNode("blockdev", ["--getsize64", device]);
  return Number(stdout.trim());
}

/**
 * A loop device of the file: the one it has, or a new one. Looks first, because asking losetup for a loop that exists
 * clears its autoclear flag.
 */
export async function attachLoop(file: string, signal?: AbortSignal): Promise<string> {
  const [existing] = await loopsOf(file);
  if (existing) return existing.device;
  const options = { deadlineMs: 30_000, ...(signal ? { signal } : {}) };
  const { stdout } = await onNode("losetup", ["--nooverlap", "--direct-io=on", "--find", "--show", file], options);
  return stdout.trim();
}

/** Frees the loop; while it is mounted, the kernel frees it at the last unmount instead (autoclear). May be repeated. */
export async function detachLoop(device: string): Promise<void> {
  await onNode("losetup", ["--detach", device]);
}

/** Makes the device as long as its file has become. Works while it is in use. */
export async function refreshLoop(device: string): Promise<void> {
  await onNode("losetup", ["--set-capacity", device]);
}
