/** Says in a sentence what the lab cannot do without, before it changes anything. */
import { readdir, readFile, readlink, stat, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { exists } from "./files.ts";
import type { Lab } from "./identity.ts";
import { refuseTakenSubnet } from "./network.ts";
import { installPackages, missingPackages } from "./packages.ts";
import type { Progress } from "./progress.ts";
import { LabError, succeeds } from "./run.ts";

export interface Machine {
  uid: number;
  hasApt: boolean;
  memoryAvailableBytes: number;
  stateFreeBytes: number;
  cacheFreeBytes: number;
  /** inotify instances that root may still make. */
  inotifyLeft: number;
  /** No Drover and no guests are wanted. */
  bare: boolean;
  checkout: string;
  architecture: string;
}

const GIB = 1024 ** 3;
const gib = (bytes: number): string => `${(bytes / GIB).toFixed(1)} GiB`;

const NOT_ROOT = "the lab makes namespaces, mounts and loop devices: run it as root";

/** Three nodes, Drover and a few guests; a cluster alone was measured at 1.2 GiB. */
const NEED_MEMORY = 6 * GIB;
const NEED_MEMORY_BARE = 2 * GIB;
const NEED_STATE = 12 * GIB;
const NEED_STATE_BARE = 3 * GIB;
const NEED_CACHE = 2 * GIB;
/** Counted on a lab: 18 by kubelets, 12 by the control plane, 3 by containerds, the rest by Drover and pods. */
const NEED_INOTIFY = 48;

/** What stands in the way of a lab on a machine: sentences, none when nothing does. Pure. */
export const obstacles = (machine: Machine, missing: string[]): string[] => {
  const found: string[] = [];
  if (machine.uid !== 0) found.push(NOT_ROOT);
  if (/[\s\\:,]/.test(machine.checkout)) {
    found.push(`the checkout's path "${machine.checkout}" has a space, colon, comma or backslash: move it elsewhere`);
  }
  if (machine.architecture !== "x64")
    found.push(`the lab's guest is built for x86-64, and this machine is ${machine.architecture}`);
  if (missing.length > 0 && !machine.hasApt) {
    found.push(`these Debian packages are missing and there is no apt-get here: install ${missing.join(", ")} in your own way`);
  }
  const needMemory = machine.bare ? NEED_MEMORY_BARE : NEED_MEMORY;
  const needState = machine.bare ? NEED_STATE_BARE : NEED_STATE;
  if (machine.memoryAvailableBytes < needMemory) {
    found.push(`the lab needs ${gib(needMemory)} of free memory, and ${gib(machine.memoryAvailableBytes)} are free`);
  }
  if (machine.stateFreeBytes < needState) {
    found.push(
      `the nodes need ${gib(needState)} of disk, and ${gib(machine.stateFreeBytes)} are free: DROVER_STATE names another place`,
    );
  }
  if (machine.cacheFreeBytes < NEED_CACHE) {
    found.push(
      `the cache needs ${gib(NEED_CACHE)} of disk, and ${gib(machine.cacheFreeBytes)} are free: DROVER_CACHE names another place`,
    );
  }
  if (machine.inotifyLeft < NEED_INOTIFY) {
    found.push(
      `the lab needs ${NEED_INOTIFY} inotify instances, and root has ${machine.inotifyLeft} left: ` +
        "raise the limit (sysctl fs.inotify.max_user_instances=1024) or end what uses them, such as another lab",
    );
  }
  return found;
};

/** The kernel counts inotify instances per user, and lets nobody see how many there are: they are looked for. */
const inotifyLeft = async (): Promise<number> => {
  const limit = Number(await readFile("/proc/sys/fs/inotify/max_user_instances", "utf8"));
  let used = 0;
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const files = await readdir(`/proc/${pid}/fd`).catch(() => []);
    if (files.length === 0 || (await stat(`/proc/${pid}`).catch(() => undefined))?.uid !== 0) continue;
    const links = await Promise.all(files.map((file) => readlink(`/proc/${pid}/fd/${file}`).catch(() => "")));
    used += links.filter((link) => link === "anon_inode:inotify").length;
  }
  return limit - used;
};

const freeBelow = async (path: string): Promise<number> => {
  let there = path;
  while (!(await exists(there))) there = dirname(there);
  const stats = await statfs(there);
  return stats.bavail * stats.bsize;
};

const availableMemory = async (): Promise<number> => {
  const line = /^MemAvailable:\s+(\d+) kB/m.exec(await readFile("/proc/meminfo", "utf8"));
  return Number(line?.[1] ?? 0) * 1024;
};

/** Before anything else is tried. */
export const refuseOrdinaryUser = (): void => {
  if (process.getuid?.() !== 0) throw new LabError(NOT_ROOT);
};

/** Throws what stands in the way; installs missing packages. `running`: the lab is up already, its needs are met. */
export const preflight = async (
  lab: Lab,
  progress: Progress,
  { running, bare }: { running: boolean; bare: boolean },
): Promise<void> => {
  const missing = await missingPackages();
  const machine: Machine = {
    uid: process.getuid?.() ?? -1,
    hasApt: await succeeds("apt-get", ["--version"]),
    memoryAvailableBytes: running ? Number.MAX_SAFE_INTEGER : await availableMemory(),
    stateFreeBytes: running ? Number.MAX_SAFE_INTEGER : await freeBelow(lab.state),
    cacheFreeBytes: await freeBelow(lab.cache),
    inotifyLeft: running ? Number.MAX_SAFE_INTEGER : await inotifyLeft(),
    bare,
    checkout: lab.checkout,
    architecture: process.arch,
  };
  const found = obstacles(machine, missing);
  if (found.length > 0) throw new LabError(found.join("\n"));
  if (missing.length > 0) await progress.step(`packages: ${missing.join(" ")}`, () => installPackages(missing));
  await refuseTakenSubnet(lab);
};
