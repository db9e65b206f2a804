/** The lab's long-running processes: started apart from this one, found again by looking, never by a pid file. */
import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { processesIn } from "./cgroups.ts";

const joinScript = join(import.meta.dirname, "scripts", "join.sh");

export interface Spawned {
  cgroup: string;
  command: string[];
  log: string;
  env?: Record<string, string>;
}

/**
 * Starts a command in a cgroup, in a session of its own, so that it outlives this process and a Ctrl-C.
 * Gives the pid; the process may still fail: see its log.
 */
export const startDetached = async ({ cgroup, command, log, env }: Spawned): Promise<number> => {
  await mkdir(dirname(log), { recursive: true });
  const out = openSync(log, "a");
  try {
    const child = spawn(joinScript, [cgroup, ...command], {
      detached: true,
      stdio: ["ignore", out, out],
      ...(env === undefined ? {} : { env: { ...process.env, ...env } }),
    });
    const pid = await new Promise<number>((resolve, reject) => {
      child.once("error", reject);
      child.once("spawn", () => (child.pid === undefined ? reject(new Error("no pid")) : resolve(child.pid)));
    });
    child.unref();
    return pid;
  } finally {
    closeSync(out);
  }
};

export interface ProcessSeen {
  pid: number;
  argv: string[];
}

/** What runs directly in a cgroup (not below it), with its command line; zombies have none and are left out. */
export const seenIn = async (cgroup: string): Promise<ProcessSeen[]> => {
  const pids = await processesIn(cgroup, false);
  const seen = await Promise.all(
    pids.map(async (pid) => {
      const text = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
      return { pid, argv: text.split("\0").slice(0, -1) };
    }),
  );
  return seen.filter((one) => one.argv.length > 0);
};

/** Whether a process is there and not a zombie. */
export const isAlive = async (pid: number): Promise<boolean> => {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  return stat !== "" && !/\) [ZX] /.test(stat);
};

/** Last lines of a log, for an error's text. */
export const logTail = async (log: string, lines = 12): Promise<string> =>
  (await readFile(log, "utf8").catch(() => "(no log)")).trimEnd().split("\n").slice(-lines).join("\n");
