/** Why a guest's process is gone, judged from what is left of it. */
import type { ExitReason, InstanceNote } from "../driver.ts";

export interface Remains {
  run: NonNullable<InstanceNote["run"]>;
  /** Which boot of the node this is; compare with run.bootId. */
  bootId: string;
  /** Kills by the memory limit that its cgroup counts now; undefined: the cgroup is gone. */
  oomKills: number | undefined;
  /** How the process ended, when it was our child. */
  end?: ProcessEnd | undefined;
  /** QEMU's last words. */
  stderr: string;
}

export interface ProcessEnd {
  code: number | null;
  signal: string | null;
}

export interface Judgement {
  reason: ExitReason;
  message: string;
}

/** Pure. The order is that of certainty: what was recorded, what is counted, what was seen, what was said. */
export function judgeExit({ run, bootId, oomKills, end, stderr }: Remains): Judgement {
  if (run.bootId !== bootId) return { reason: "NodeRestarted", message: "the node was restarted while it ran" };
  if (oomKills !== undefined && oomKills > run.oomKillsBefore) {
    return {
      reason: "MemoryLimit",
      message: "the kernel ended QEMU at the memory limit of its claim: it needed more than its memory and the reserved overhead",
    };
  }
  const words = lastWords(stderr);
  const said = words === "" ? "" : `: ${words}`;
  if (run.stopAskedAt !== undefined) {
    // the stop is done; that the guest had no time to write its files back is to be found in the note and the log
    const crashed = end?.signal && end.signal !== "SIGKILL";
    const message = crashed ? `asked to stop, QEMU crashed (${end.signal})${said}` : "stopped as asked";
    return { reason: "Stopped", message };
  }
  const bySignal = /terminating on signal (\d+)/.exec(stderr);
  if (bySignal) return { reason: "Killed", message: `someone on the node ended QEMU by signal ${bySignal[1]}` };
  if (end?.signal === "SIGKILL") return { reason: "Killed", message: "someone on the node killed QEMU" };
  if (end?.signal) return { reason: "Crashed", message: `QEMU crashed (${end.signal})${said}` };
  if (end && end.code !== 0) return { reason: "Crashed", message: `QEMU ended with exit code ${end.code ?? "unknown"}${said}` };
  if (oomKills === undefined) return { reason: "ClaimGone", message: "its claim's cgroup is gone, and its processes with it" };
  if (words !== "") return { reason: "Crashed", message: `QEMU ended${said}` };
  return { reason: "Unknown", message: "QEMU is gone, and nothing is left that tells why" };
}

/** What `-trace` writes: pid@seconds:event. */
const TRACE = /^\d+@\d+\.\d+:/;
const LINES = 5;
const LENGTH = 2000;

/** QEMU's last lines as one sentence, without its time stamps and its program name. */
export function lastWords(stderr: string): string {
  return stderr
    .split("\n")
    .map((line) =>
      line
        .replace(/^\S+Z /, "")
        .replace(/^(\S*\/)?qemu-system-\S+: /, "")
        .trim(),
    )
    .filter((line) => line !== "" && !TRACE.test(line))
    .slice(-LINES)
    .join("; ")
    .slice(-LENGTH);
}
