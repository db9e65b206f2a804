/** Ends a claim's holder, which ignores TERM so that a guest has the whole grace period: done as soon as no guest is left. */
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Pod } from "../../kube/index.ts";
import { errorCode } from "../errors.ts";
import { hierarchies } from "../ovs/cgroup.ts";
import { processNow, type ProcessId } from "../ovs/process.ts";

const LEAF = "drover";

export interface HolderProcess extends ProcessId {
  /** Cgroup of the process below the pod's: the container's. */
  cgroup: string;
}

/**
 * Processes of a pod's containers: those in cgroups below the pod's that belong to one of its containers. What is in `drover`
 * is the guest's, and what is of no container (the sandbox) the runtime ends itself.
 */
export async function holderProcesses(root: string, podCgroup: string, pod: Pod): Promise<HolderProcess[]> {
  const containers = (pod.status?.containerStatuses ?? []).flatMap(({ containerID }) => containerID?.split("://")[1] ?? []);
  const found = new Map<number, HolderProcess>();
  for (const hierarchy of await hierarchies(root)) {
    for (const { cgroup, pids } of await below(join(hierarchy, podCgroup), "")) {
      if (!isContainer(cgroup, containers)) continue;
      for (const pid of pids) {
        const id = await processNow(pid);
        if (id !== undefined) found.set(pid, { ...id, cgroup });
      }
    }
  }
  return [...found.values()];
}

/** Whether a cgroup, as a path below its pod's, is of one of these containers. Pure. */
export function isContainer(cgroup: string, containers: readonly string[]): boolean {
  const top = cgroup.split("/")[0] ?? "";
  return top !== LEAF && containers.some((id) => id !== "" && top.includes(id));
}

/** Processes of a directory's children, at all depths, by cgroup; those in the directory itself are no container's. */
async function below(directory: string, path: string): Promise<{ cgroup: string; pids: number[] }[]> {
  const entries = await readdir(join(directory, path), { withFileTypes: true }).catch((error: unknown) => {
    if (errorCode(error) === "ENOENT") return [];
    throw error;
  });
  const found: { cgroup: string; pids: number[] }[] = [];
  for (const entry of entries) {
    if (!entry.isDirectory() || (path === "" && entry.name === LEAF)) continue;
    const cgroup = path === "" ? entry.name : `${path}/${entry.name}`;
    found.push({ cgroup, pids: await pidsIn(join(directory, cgroup)) }, ...(await below(directory, cgroup)));
  }
  return found;
}

async function pidsIn(directory: string): Promise<number[]> {
  try {
    return (await readFile(join(directory, "cgroup.procs"), "utf8")).split("\n").filter(Boolean).map(Number);
  } catch (error) {
    if (["ENOENT", "ENODEV", "EOPNOTSUPP"].includes(errorCode(error) ?? "")) return [];
    throw error;
  }
}

/** Kills a process if it is still the one that was found, in the cgroup where it was found. */
export async function killHolder(holder: HolderProcess): Promise<boolean> {
  const now = await processNow(holder.pid);
  if (now?.start !== holder.start) return false;
  const cgroups = await readFile(`/proc/${holder.pid}/cgroup`, "utf8").catch(() => "");
  if (!cgroups.split("\n").some((line) => line.endsWith(`/${holder.cgroup}`))) return false;
  try {
    process.kill(holder.pid, "SIGKILL");
    return true;
  } catch (error) {
    if (errorCode(error) === "ESRCH") return false;
    throw error;
  }
}
