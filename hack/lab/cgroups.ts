/** The lab's cgroups: made in every hierarchy, emptied and removed as a whole. */
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { eventually } from "./run.ts";

const ROOT = "/sys/fs/cgroup";

/** Where hierarchies are mounted: one on cgroup v2, one per controller on v1. */
export const hierarchies = async (): Promise<string[]> => {
  if (existsSync(join(ROOT, "cgroup.controllers"))) return [ROOT];
  const names = await readdir(ROOT, { withFileTypes: true });
  const paths = names.filter((one) => one.isDirectory()).map((one) => join(ROOT, one.name));
  return paths.filter((path) => existsSync(join(path, "cgroup.procs")));
};

/** On v1 a new cpuset is empty and takes no process until it has processors and memory nodes. */
const fillCpuset = async (path: string): Promise<void> => {
  for (const file of ["cpuset.cpus", "cpuset.mems"]) {
    if ((await readFile(join(path, file), "utf8")).trim() !== "") continue;
    await writeFile(join(path, file), await readFile(join(path, "..", file), "utf8"));
  }
};

/** On v2 a child has a controller only if its parent hands it on. */
const handOnControllers = async (path: string): Promise<void> => {
  const there = (await readFile(join(path, "cgroup.controllers"), "utf8")).trim().split(" ").filter(Boolean);
  await writeFile(join(path, "cgroup.subtree_control"), there.map((one) => `+${one}`).join(" "));
};

/** Makes a cgroup and its parents in every hierarchy. May be repeated. */
export const makeCgroup = async (group: string): Promise<void> => {
  const parts = group.split("/");
  for (const hierarchy of await hierarchies()) {
    for (let depth = 1; depth <= parts.length; depth++) {
      const path = join(hierarchy, ...parts.slice(0, depth));
      if (hierarchy === ROOT) await handOnControllers(join(path, ".."));
      await mkdir(path, { recursive: true });
      if (hierarchy.endsWith("/cpuset")) await fillCpuset(path);
    }
  }
};

/** Directories below a path, deepest first, the path itself last. */
const tree = async (path: string): Promise<string[]> => {
  const entries = await readdir(path, { withFileTypes: true }).catch(() => []);
  const below = await Promise.all(entries.filter((one) => one.isDirectory()).map((one) => tree(join(path, one.name))));
  return [...below.flat(), path];
};

/** Processes in a cgroup, in any hierarchy; those below it too if `deep`. */
export const processesIn = async (group: string, deep = true): Promise<number[]> => {
  const found = new Set<number>();
  for (const hierarchy of await hierarchies()) {
    const top = join(hierarchy, group);
    for (const path of deep ? await tree(top) : [top]) {
      const text = await readFile(join(path, "cgroup.procs"), "utf8").catch(() => "");
      for (const pid of text.split("\n")) if (pid !== "" && pid !== "0") found.add(Number(pid));
    }
  }
  return [...found];
};

/**
 * The cgroup that holds a node's own processes, beside that of its pods: as systemd has system.slice for kubelet and the like. Directly in the
 * node's cgroup each of their threads would weigh half as much as all pods of a node with two processors; and on v2 a cgroup with processes
 * cannot hand controllers on.
 */
export const leafOf = (group: string): string => `${group}/system`;

/** Moves what runs directly in a cgroup to its leaf. */
export const moveToLeaf = async (group: string): Promise<void> => {
  for (const hierarchy of await hierarchies()) {
    const leaf = join(hierarchy, leafOf(group));
    await mkdir(leaf, { recursive: true });
    if (hierarchy.endsWith("/cpuset")) await fillCpuset(leaf);
    for (const pid of await processesIn(group, false)) await writeFile(join(leaf, "cgroup.procs"), String(pid));
  }
};

/** Ends a process at once. One that is gone already is no error. */
export const kill = (pid: number, signal: NodeJS.Signals = "SIGKILL"): void => {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
};

/** Kills everything in a cgroup and below it, and waits until nothing is left there. */
export const killCgroup = async (group: string): Promise<void> => {
  await eventually(`no process left in cgroup ${group}`, async () => {
    const pids = await processesIn(group);
    for (const pid of pids) kill(pid);
    return pids.length === 0 ? true : undefined;
  });
};

/** Kills what is in a cgroup and removes it everywhere. May be repeated. */
export const removeCgroup = async (group: string): Promise<void> => {
  await killCgroup(group);
  // A dying process keeps its cgroup busy for some milliseconds more.
  await eventually(`cgroup ${group} removed`, async () => {
    let left = false;
    for (const hierarchy of await hierarchies()) {
      const top = join(hierarchy, group);
      if (!existsSync(top)) continue;
      for (const path of await tree(top)) await rmdir(path).catch(() => undefined);
      left ||= existsSync(top);
    }
    return left ? undefined : true;
  });
};

/** Moves this process into a cgroup, and with it all that it will start. */
export const joinCgroup = async (group: string): Promise<void> => {
  await makeCgroup(group);
  for (const hierarchy of await hierarchies()) await writeFile(join(hierarchy, group, "cgroup.procs"), String(process.pid));
};
