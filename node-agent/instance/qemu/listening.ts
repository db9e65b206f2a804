/** Which sockets a process listens on. */
import { readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { errorCode } from "../../errors.ts";

/** __SO_ACCEPTCON of the kernel's unix sockets (net/unix/af_unix.c, unix_seq_show). */
const LISTENING = 0x10000;

/**
 * Inodes of the sockets that listen at a path; of a text as /proc/net/unix has it: Num RefCount Protocol Flags Type St Inode Path. The
 * path is as it was when it was bound, so those of several processes may have the same.
 */
export const listeningAt = (text: string, path: string): Set<string> => {
  const lines = text.split("\n").map((line) => line.trim().split(/\s+/));
  const found = lines.filter(([, , , flags = "", , , , at]) => at === path && (Number.parseInt(flags, 16) & LISTENING) !== 0);
  return new Set(found.flatMap(([, , , , , , inode]) => inode ?? []));
};

/** Whether a process itself listens at a path, as it names it. One that is gone does not. */
export async function isListening(pid: number, path: string): Promise<boolean> {
  try {
    const inodes = listeningAt(await readFile(`/proc/${pid}/net/unix`, "utf8"), path);
    if (inodes.size === 0) return false;
    const open = join("/proc", String(pid), "fd");
    const targets = await Promise.all((await readdir(open)).map((fd) => readlink(join(open, fd)).catch(() => "")));
    return targets.some((target) => inodes.has(/^socket:\[(\d+)\]$/.exec(target)?.[1] ?? ""));
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "ESRCH") return false;
    throw error;
  }
}
