/** What must be there before QEMU is asked to start, so that what is missing is named by what the user knows. */
import { constants } from "node:fs";
import { lstat, open, readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { errorCode, UserError } from "../../errors.ts";
import type { NodePaths } from "../../node.ts";
import type { MachineDisk, MachinePlan } from "../driver.ts";
import { checkUid } from "./notes.ts";

/** Checks a plan against the node, and adds what only the node can tell. Throws UserError for what is missing. */
export async function checkPlan(plan: MachinePlan, paths: NodePaths): Promise<MachinePlan> {
  checkUid(plan.instanceUid);
  checkUid(plan.claimUid);
  await checkRuntime(plan.runtimeVersion, paths);
  await checkTaps(plan);
  const disks = await Promise.all(plan.disks.map((disk) => checkDisk(disk, plan, paths)));
  return { ...plan, disks };
}

async function checkRuntime(version: string, paths: NodePaths): Promise<void> {
  try {
    await stat(join(paths.runtime(version), "enter"));
  } catch (cause) {
    throw new UserError("RuntimeMissing", `runtime ${version} is not on this node; the node agent installs it when it starts`, {
      cause,
    });
  }
}

/** The tap must be in the network namespace that QEMU will have, which is ours: the node's. */
async function checkTaps(plan: MachinePlan): Promise<void> {
  const text = await readFile("/proc/self/net/dev", "utf8");
  const links = new Set(text.split("\n").map((line) => line.split(":")[0]?.trim()));
  for (const nic of plan.nics) {
    if (!links.has(nic.tap)) throw new UserError("TapMissing", `NIC ${nic.id} has no tap ${nic.tap} on the node`);
  }
}

async function checkDisk(disk: MachineDisk, plan: MachinePlan, paths: NodePaths): Promise<MachineDisk> {
  if (dirname(disk.path) !== paths.volumes(disk.pool, plan.instanceUid)) {
    throw new TypeError(`disk ${disk.id} lies outside its instance's volumes: ${disk.path}`);
  }
  const what = `disk ${disk.id} in pool ${disk.pool}`;
  let seen: Awaited<ReturnType<typeof lstat>>;
  try {
    seen = await lstat(disk.path);
  } catch (cause) {
    throw new UserError("DiskMissing", `${what} is not there (${errorCode(cause) ?? "unreadable"}); is the pool mounted?`, {
      cause,
    });
  }
  if (!seen.isFile()) throw new UserError("DiskMissing", `${what} is not a file`);
  return { ...disk, direct: disk.direct ?? (await canBypassCache(disk.path)) };
}

/** Whether the file system takes O_DIRECT; some (tmpfs before 6.6, many FUSE ones) do not. */
export async function canBypassCache(path: string): Promise<boolean> {
  try {
    const handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_DIRECT);
    await handle.close();
    return true;
  } catch (error) {
    if (errorCode(error) === "EINVAL") return false;
    throw error;
  }
}
