/** A guest's process: found by what cannot be forged, ended, waited for. */
import { readFile } from "node:fs/promises";
import { sleep, type Clock } from "../../../kube/clock.ts";
import { errorCode } from "../../errors.ts";
import { nodePid } from "../../node.ts";
import { isAlive, processNow, type ProcessId } from "../../ovs/process.ts";
import type { InstanceNote } from "../driver.ts";
import type { ClaimCgroups } from "./cgroup.ts";

const LOOK_AGAIN_MS = 5;

/**
 * QEMU's process of a run: the noted one while it lives, else whoever is in the claim's cgroup, where only QEMU ever gets
 * (an agent that died before it could note the pid). Never from a file that the guest could write.
 */
export async function findProcess(run: NonNullable<InstanceNote["run"]>, cgroups: ClaimCgroups): Promise<ProcessId | undefined> {
  if (run.pid !== undefined && run.pidStart !== undefined) {
    const id = { pid: run.pid, start: run.pidStart };
    return (await isAlive(id)) ? id : undefined;
  }
  for (const pid of await cgroups.processes(run.claimUid)) {
    const id = await processNow(pid);
    if (id) return id;
  }
  return undefined;
}

/**
 * Whether the process is gone within `ms`. Meant for right after a sure sign of its end (its sockets closed, or it was
 * killed), when what remains takes the kernel milliseconds: it looks every 5 ms, for Node.js has no pidfd.
 */
export async function goneWithin(id: ProcessId, ms: number, clock: Clock): Promise<boolean> {
  const end = clock.monotonic() + ms;
  for (;;) {
    if (!(await isAlive(id))) return true;
    if (clock.monotonic() >= end) return false;
    await sleep(clock, LOOK_AGAIN_MS);
  }
}

/** Kills this very process, not another that has its pid by now. May be repeated. */
export async function kill(id: ProcessId): Promise<void> {
  if (!(await isAlive(id))) return;
  try {
    process.kill(id.pid, "SIGKILL");
  } catch (error) {
    if (errorCode(error) !== "ESRCH") throw error;
  }
}

/** The kernel's name of this boot, as the kubelet tells it, too. */
export const kernelBootId = async (): Promise<string> => (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();

/**
 * Names this boot of the node: the kernel's id, and the start of the node's init, which tells two lives of a node apart that
 * is itself a container.
 */
export async function readBootId(): Promise<string> {
  const kernel = await kernelBootId();
  const init = await processNow(nodePid());
  return `${kernel}/${init?.start ?? ""}`;
}

/** A process as it is noted; undefined when it is gone. */
export async function identify(pid: number): Promise<{ pid: number; pidStart: string } | undefined> {
  const id = await processNow(pid);
  return id && { pid, pidStart: id.start };
}
