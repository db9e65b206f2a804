/** What the parts of the QEMU driver share, and the few things all of them do. */
import { readFile } from "node:fs/promises";
import type { Clock } from "../../../kube/clock.ts";
import type { Logger } from "../../../kube/logger.ts";
import { errorCode } from "../../errors.ts";
import type { NodePaths } from "../../node.ts";
import type { InstanceNote } from "../driver.ts";
import type { ClaimCgroups } from "./cgroup.ts";
import type { ProcessEnd } from "./exit.ts";
import type { GuestAgents } from "./guest-agent.ts";
import { stderrFile } from "./launcher.ts";
import type { Monitors } from "./monitors.ts";
import type { Notes } from "./notes.ts";

/** One life of a guest's process. */
export type Run = NonNullable<InstanceNote["run"]>;

export interface QemuContext {
  paths: NodePaths;
  log: Logger;
  clock: Clock;
  notes: Notes;
  cgroups: ClaimCgroups;
  /** The node's cgroup mount point as the node sees it. */
  cgroupRoot: string;
  /** QEMU's trace events that go to its stderr. */
  trace: readonly string[];
  monitors: Monitors;
  guestAgents: GuestAgents;
  bootId: () => Promise<string>;
  /** Processes that this agent has started, by instance: only their parent learns how they ended. */
  children: Map<string, { pid: number; ended: Promise<ProcessEnd> }>;
  /** Instances that are being started right now. */
  starting: Set<string>;
}

/** Deadlines in ms. Those for QEMU are long: a busy node under emulation is slow, not broken. */
export const DEADLINE = {
  /** The kubelet makes a pod's cgroup about 20 ms after binding. */
  cgroup: 10_000,
  /** From the launcher's start until it is QEMU. */
  enter: 10_000,
  /** From there until QEMU answers. */
  start: 60_000,
  /** From the guest's memory handed over until a QEMU that takes over has made its machine and answers. */
  greeting: 20_000,
  /** For a question to a running QEMU. */
  ask: 5_000,
  /** For a sign of life of the guest agent. */
  guestAgent: 2_000,
  /** From asking QEMU to quit until its process is gone. */
  quit: 3_000,
  /** From SIGKILL until the process is gone. */
  kill: 10_000,
  /** From the close of the monitor's socket until the process is gone. */
  closeToEnd: 2_000,
} as const;

export const timestamp = (clock: Clock): string => new Date(clock.now()).toISOString();

/** Changes the noted run, if it is still the one that was looked at. */
export async function updateRun(context: QemuContext, instanceUid: string, run: Run, change: (run: Run) => Run): Promise<void> {
  await context.notes.update(instanceUid, (note) =>
    note.run?.startedAt === run.startedAt && note.run.claimUid === run.claimUid ? { ...note, run: change(note.run) } : note,
  );
}

/** What QEMU said on stderr in its last life; empty when nothing. */
export async function readStderr(context: QemuContext, instanceUid: string): Promise<string> {
  try {
    return await readFile(stderrFile(context.paths, instanceUid), "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return "";
    throw error;
  }
}
