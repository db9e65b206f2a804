/** Starts a daemon on the node that outlives the pod it is started from. */
import { spawn } from "node:child_process";
import { open, writeFile } from "node:fs/promises";
import { nodePid } from "../node.ts";
import { joinCgroup } from "./cgroup.ts";
import { processNow, type ProcessId } from "./process.ts";

export interface DaemonStart {
  /** Program and arguments, as they are on the node. */
  command: readonly string[];
  /** A POSIX shell, as a command on the node: it waits in the daemon's place until the daemon may start. */
  shell: readonly string[];
  env: Record<string, string>;
  /** Gets what this start prints; emptied before. */
  logFile: string;
  /** Cgroup of its own, outside kubepods. */
  cgroup: string;
  /** Called before the program starts, with the process that it will be: what is written down here is never too late. */
  announce: (id: ProcessId) => Promise<void>;
}

/**
 * The process is the node's in all namespaces but that it may share the pod's pid namespace, which is the node's by hostPID.
 * It waits for one line before it becomes the daemon: if we die before its cgroup is right and it is written down, it ends.
 */
export async function startDaemon(start: DaemonStart): Promise<{ id: ProcessId; ended: Promise<string> }> {
  const log = await open(start.logFile, "w", 0o640);
  try {
    const pid = String(nodePid());
    const child = spawn(
      "nsenter",
      [
        "-t",
        pid,
        "-m",
        "-u",
        "-i",
        "-n",
        "--",
        ...start.shell,
        "-c",
        'read -r _ && exec "$@" </dev/null',
        "sh",
        ...start.command,
      ],
      { detached: true, stdio: ["pipe", log.fd, log.fd], env: start.env, cwd: "/" },
    );
    const ended = new Promise<string>((resolve) => {
      child.once("error", (error) => resolve(error.message));
      child.once("exit", (code, signal) => resolve(signal === null ? `exit code ${code}` : `ended by ${signal}`));
    });
    const stdin = child.stdin;
    if (stdin === null) throw new Error("a child without a standard input");
    stdin.on("error", () => undefined); // it ended first: `ended` says so
    try {
      const id = child.pid === undefined ? undefined : await processNow(child.pid);
      if (id === undefined) throw new Error(`${start.command[0]} could not be started: ${await ended}`);
      await joinCgroup(`/proc/${pid}/root/sys/fs/cgroup`, start.cgroup, id.pid);
      await protectFromOom(id.pid);
      await start.announce(id);
      stdin.end("go\n");
      child.unref();
      return { id, ended };
    } catch (error) {
      stdin.end(); // end of file without the line: the shell ends
      throw error;
    }
  } finally {
    await log.close();
  }
}

/** A child has its starter's score, which may make it the node's first victim. Less than 0 needs a right that a pod may lack. */
async function protectFromOom(pid: number): Promise<void> {
  for (const score of ["-998", "0"]) {
    try {
      await writeFile(`/proc/${pid}/oom_score_adj`, score);
      return;
    } catch (error) {
      if (score === "0") throw error;
    }
  }
}
