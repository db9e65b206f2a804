/** Processes of the node by pid and start time, which together name one process for ever. */
import { readFile, readdir, readlink } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import { errorCode } from "../errors.ts";

export interface ProcessId {
  pid: number;
  /** Start in clock ticks since boot, from /proc/<pid>/stat. */
  start: string;
}

/** The process that has this pid now; undefined when there is none or only its zombie, which holds nothing any more. */
export async function processNow(pid: number): Promise<ProcessId | undefined> {
  const stat = await readProc(pid, "stat");
  if (stat === undefined) return undefined;
  // The name in parentheses may itself contain anything: fields are counted from the last one.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [state, start] = [fields[0], fields[19]];
  if (state === undefined || start === undefined || state === "X") return undefined;
  // The first thread may be a zombie while others still hold files and interfaces.
  if (state === "Z" && (await threads(pid)) <= 1) return undefined;
  return { pid, start };
}

async function threads(pid: number): Promise<number> {
  try {
    return (await readdir(`/proc/${pid}/task`)).length;
  } catch (error) {
    if (isGone(error)) return 0;
    throw error;
  }
}

/** Resolves when the process, of which the end was seen to have begun, is gone; false if that takes longer than `ms`. */
export const goneWithin = async (id: ProcessId, ms: number): Promise<boolean> => {
  // Node.js has no pidfd: the end of a process that is not our child is seen by looking, every 5 ms for as long as it takes.
  const end = performance.now() + ms;
  while (performance.now() < end) {
    if (!(await isAlive(id))) return true;
    await pause(5);
  }
  return !(await isAlive(id));
};

export async function isAlive(id: ProcessId): Promise<boolean> {
  return (await processNow(id.pid))?.start === id.start;
}

/** The file a process runs; undefined when it is gone. A deleted file is named as it was. */
export async function executableOf(pid: number): Promise<string | undefined> {
  try {
    return (await readlink(`/proc/${pid}/exe`)).replace(/ \(deleted\)$/, "");
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

export async function argumentsOf(pid: number): Promise<string[]> {
  return (await readProc(pid, "cmdline"))?.split("\0").slice(0, -1) ?? [];
}

/**
 * Ends a process: TERM, and KILL after `termMs`. Resolves when it is gone; does nothing if it is gone already.
 * Throws when it lives `termMs` after KILL (it hangs in the kernel).
 */
export async function endProcess(id: ProcessId, termMs: number): Promise<void> {
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    if (!(await isAlive(id))) return;
    try {
      process.kill(id.pid, signal);
    } catch (error) {
      if (errorCode(error) === "ESRCH") return;
      throw error;
    }
    if (await goneWithin(id, termMs)) return;
  }
  throw new Error(`process ${id.pid} does not end, not even by SIGKILL: it hangs in the kernel`);
}

async function readProc(pid: number, file: string): Promise<string | undefined> {
  try {
    return await readFile(`/proc/${pid}/${file}`, "utf8");
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

const isGone = (error: unknown): boolean => ["ENOENT", "ESRCH"].includes(errorCode(error) ?? "");
