/** A cgroup outside kubepods for what must outlive pods: one in every v1 hierarchy, or one directory on v2. */
import { mkdir, readFile, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { errorCode } from "../errors.ts";

/** The hierarchies below a cgroup mount point: the point itself on v2. Links such as cpu -> cpu,cpuacct are left out. */
export async function hierarchies(root: string): Promise<string[]> {
  if (await exists(join(root, "cgroup.controllers"))) return [root];
  const entries = await readdir(root, { withFileTypes: true });
  const found: string[] = [];
  for (const entry of entries) {
    const directory = join(root, entry.name);
    if (entry.isDirectory() && (await exists(join(directory, "cgroup.procs")))) found.push(directory);
  }
  return found;
}

/**
 * Puts a process into the cgroup `name` of every hierarchy and makes the cgroup where it is missing. May be repeated.
 * Throws when a hierarchy refuses: the process would then end with the pod that started it.
 */
export async function joinCgroup(root: string, name: string, pid: number): Promise<void> {
  const all = await hierarchies(root);
  if (all.length === 0) throw new Error(`${root} holds no cgroup hierarchy`);
  for (const hierarchy of all) {
    const directory = join(hierarchy, name);
    await mkdir(directory, { recursive: true });
    await inheritCpuset(hierarchy, directory);
    await writeFile(join(directory, "cgroup.procs"), String(pid));
  }
}

/** On v1 nobody may enter a cpuset whose CPUs and memory nodes are not set. */
export async function inheritCpuset(parent: string, directory: string): Promise<void> {
  for (const file of ["cpuset.cpus", "cpuset.mems"]) {
    const own = await read(join(directory, file));
    if (own === undefined || own !== "") continue;
    const inherited = await read(join(parent, file));
    if (inherited !== undefined && inherited !== "") await writeFile(join(directory, file), inherited);
  }
}

async function read(file: string): Promise<string | undefined> {
  try {
    return (await readFile(file, "utf8")).trim();
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
