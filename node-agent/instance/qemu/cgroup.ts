/** The claim pod's cgroup, as the kubelet makes it, and the leaf `drover` in it where the guest's process lives. */
import { mkdir, readFile, rmdir, stat, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { sleep, type Clock } from "../../../kube/clock.ts";
import { errorCode, UserError } from "../../errors.ts";
import { hierarchies, inheritCpuset } from "../../ovs/cgroup.ts";

const LEAF = "drover";
const LOOK_AGAIN_MS = 10;

/** Where the kubelet puts a pod, below a hierarchy: each quality of service, with the cgroupfs and with the systemd driver. */
export function podCgroups(podUid: string): string[] {
  const escaped = podUid.replaceAll("-", "_");
  return [
    `kubepods/burstable/pod${podUid}`,
    `kubepods/pod${podUid}`,
    `kubepods/besteffort/pod${podUid}`,
    `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${escaped}.slice`,
    `kubepods.slice/kubepods-pod${escaped}.slice`,
    `kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod${escaped}.slice`,
  ];
}

export interface CgroupPlace {
  /** The node's cgroup mount point, seen from here. */
  root: string;
  /** Cgroup below which the kubelet makes `kubepods`; empty on nearly every node. */
  parent: string;
}

/** Cgroups of claim pods on one node, v1 or v2. */
export class ClaimCgroups {
  readonly #place: CgroupPlace;

  constructor(place: CgroupPlace) {
    this.#place = place;
  }

  /** The pod's cgroup relative to every hierarchy; undefined when not all hierarchies that have kubepods have it. */
  async find(podUid: string): Promise<string | undefined> {
    const all = await this.#hierarchies();
    for (const candidate of podCgroups(podUid)) {
      const path = join(this.#place.parent, candidate);
      const top = join(this.#place.parent, candidate.split("/")[0] ?? "");
      const used = await filter(all, (hierarchy) => isDirectory(join(hierarchy, top)));
      if (used.length === 0) continue;
      const having = await filter(used, (hierarchy) => isDirectory(join(hierarchy, path)));
      if (having.length === used.length) return path;
    }
    return undefined;
  }

  /**
   * The same, once the kubelet has made it (about 20 ms after the pod was bound). Looks every 10 ms: the kernel's cgroup file
   * system reports new directories to nobody. Throws UserError when the deadline passes, or the signal aborts.
   */
  async wait(podUid: string, options: { deadlineMs: number; clock: Clock; signal: AbortSignal }): Promise<string> {
    const { deadlineMs, clock, signal } = options;
    const end = clock.monotonic() + deadlineMs;
    for (;;) {
      const found = await this.find(podUid);
      if (found !== undefined) return found;
      signal.throwIfAborted();
      if (clock.monotonic() >= end) {
        throw new UserError(
          "ClaimCgroupMissing",
          `the kubelet has made no cgroup for the claim pod ${podUid} within ${deadlineMs} ms; look at the pod's events`,
        );
      }
      await sleep(clock, LOOK_AGAIN_MS, signal);
    }
  }

  /** Puts a process that runs into the claim's `drover`, in every hierarchy that the claim is in. May be repeated. */
  async move(pid: number, podUid: string): Promise<void> {
    const path = await this.find(podUid);
    if (path === undefined) throw new UserError("ClaimCgroupMissing", `the claim pod ${podUid} has no cgroup on this node`);
    for (const hierarchy of await this.#hierarchies()) {
      const pod = join(hierarchy, path);
      if (!(await isDirectory(pod))) continue;
      const leaf = join(pod, LEAF);
      await mkdir(leaf, { recursive: true });
      await inheritCpuset(pod, leaf);
      await takeCharges(leaf);
      await writeFile(join(leaf, "cgroup.procs"), String(pid));
    }
  }

  /** Processes in the claim's `drover`; empty when it is gone. */
  async processes(podUid: string): Promise<number[]> {
    const directory = await this.#accounting(podUid);
    const text = directory === undefined ? undefined : await read(join(directory, "cgroup.procs"));
    return (text ?? "").split("\n").filter(Boolean).map(Number);
  }

  /** How often the kernel has killed in the claim's `drover` for want of memory; undefined when it is gone. */
  async oomKills(podUid: string): Promise<number | undefined> {
    const directory = await this.#accounting(podUid);
    if (directory === undefined) return undefined;
    const text = (await read(join(directory, "memory.oom_control"))) ?? (await read(join(directory, "memory.events")));
    // no counter at all: a kernel without memory accounting, which kills nobody for it
    return Number(/^oom_kill (\d+)$/m.exec(text ?? "")?.[1] ?? 0);
  }

  /** What the pod may use of memory and what it does, files' pages left out; undefined when it is gone, or not accounted for. */
  async memory(podUid: string): Promise<{ limitBytes: number | undefined; usedBytes: number } | undefined> {
    const leaf = await this.#accounting(podUid);
    if (leaf === undefined) return undefined;
    const file = async (v1: string, v2: string): Promise<string | undefined> =>
      (await read(join(leaf, "..", v1))) ?? (await read(join(leaf, "..", v2)));
    const [limit, used, counts] = await Promise.all([
      file("memory.limit_in_bytes", "memory.max"),
      file("memory.usage_in_bytes", "memory.current"),
      file("memory.stat", "memory.stat"),
    ]);
    if (used === undefined || counts === undefined) return undefined;
    // shared memory, such as the guest's, is counted with anonymous pages here, not with files
    const pages = (name: string): number => Number(new RegExp(`^(?:total_)?${name} (\\d+)$`, "m").exec(totals(counts))?.[1] ?? 0);
    const limitBytes = Number(limit);
    return {
      limitBytes: Number.isFinite(limitBytes) && limitBytes < NO_LIMIT ? limitBytes : undefined,
      usedBytes: Number(used) - pages("inactive_file") - pages("active_file"),
    };
  }

  /** Removes the empty leaf from every hierarchy. May be repeated; throws while a process is in it. */
  async remove(podUid: string): Promise<void> {
    const all = await this.#hierarchies();
    for (const candidate of podCgroups(podUid)) {
      for (const hierarchy of all) await removeDirectory(join(hierarchy, this.#place.parent, candidate, LEAF));
    }
  }

  async #hierarchies(): Promise<string[]> {
    return hierarchies(this.#place.root);
  }

  /** The leaf in the hierarchy that accounts for memory. */
  async #accounting(podUid: string): Promise<string | undefined> {
    const all = await this.#hierarchies();
    const memory = all.find((one) => basename(one).split(",").includes("memory")) ?? all[0];
    if (memory === undefined) return undefined;
    for (const candidate of podCgroups(podUid)) {
      const directory = join(memory, this.#place.parent, candidate, LEAF);
      if (await isDirectory(directory)) return directory;
    }
    return undefined;
  }
}

/** cgroup v1 tells of no limit by a figure near 2^63. */
const NO_LIMIT = 2 ** 60;

/** On cgroup v1 a pod's own figures leave out what is below it; its totals do not. */
const totals = (counts: string): string =>
  counts.includes("total_inactive_file")
    ? counts
        .split("\n")
        .filter((line) => line.startsWith("total_"))
        .join("\n")
    : counts;

/** Lets memory follow its process: private and shared. Kernels that know no such thing have no such file, or refuse. */
async function takeCharges(leaf: string): Promise<void> {
  try {
    await writeFile(join(leaf, "memory.move_charge_at_immigrate"), "3", { flag: "r+" });
  } catch (error) {
    if (!["ENOENT", "EINVAL", "EOPNOTSUPP", "EACCES"].includes(errorCode(error) ?? "")) throw error;
  }
}

async function filter<T>(items: T[], test: (item: T) => Promise<boolean>): Promise<T[]> {
  const kept = await Promise.all(items.map(test));
  return items.filter((_, index) => kept[index]);
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    if (isGone(error)) return false;
    throw error;
  }
}

async function read(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

async function removeDirectory(path: string): Promise<void> {
  try {
    await rmdir(path);
  } catch (error) {
    if (!isGone(error)) throw error;
  }
}

/** A cgroup that is being removed answers ENODEV. */
const isGone = (error: unknown): boolean => ["ENOENT", "ENODEV", "ENOTDIR"].includes(errorCode(error) ?? "");
