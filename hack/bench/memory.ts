/** What a guest's processes take beside its RAM, from the accounts of its claim's cgroup. */
import { overheadBytes } from "../../operator/instance/overhead.ts";
import { inNode } from "../lab/index.ts";
import type { Probe } from "../lab/probe.ts";
import { ask, statusWithin } from "../kit/guest.ts";
import type { Instance } from "../../crds/instance.ts";

const MIB = 2 ** 20;
/** Of RAM, what the guest's kernel and its programs keep for themselves: eating that as well would end them. */
const GUEST_OWN_MIB = 160;

export interface Memory {
  overheadMb: number;
  reservedMb: number;
  /** Part of the RAM that was really touched, 0 to 1. */
  touched: number;
}

/** Directory of a node with the account of a claim's memory. */
export const accountOf = async (node: string, claimUid: string): Promise<string> => {
  // systemd's names have underscores
  const pattern = `*pod${claimUid.replaceAll("-", "?")}*/drover`;
  const found = await inNode(node, "find", ["/sys/fs/cgroup", "-type", "d", "-path", pattern]);
  const all = found.split("\n").filter((path) => path !== "");
  const directory = all.find((path) => path.startsWith("/sys/fs/cgroup/memory/")) ?? all[0];
  if (directory === undefined) throw new Error(`${node} has no cgroup drover/ of claim ${claimUid}`);
  return directory;
};

/** What is charged to the guest of a claim, in bytes, and how much of that is page cache. */
export const accountsOf = async (node: string, claimUid: string): Promise<{ usage: number; pageCache: number }> =>
  accountsIn(node, await accountOf(node, claimUid));

/** The same of any directory of a memory hierarchy. */
export const accountsIn = async (node: string, directory: string): Promise<{ usage: number; pageCache: number }> => {
  const v1 = directory.startsWith("/sys/fs/cgroup/memory/");
  const usage = Number(await inNode(node, "cat", [`${directory}/${v1 ? "memory.usage_in_bytes" : "memory.current"}`]));
  const stat = await inNode(node, "cat", [`${directory}/memory.stat`]);
  const field = (name: string): number => Number(new RegExp(`^${name} (\\d+)$`, "m").exec(stat)?.[1] ?? Number.NaN);
  return { usage, pageCache: v1 ? field("total_cache") - field("total_shmem") : field("file") - field("shmem") };
};

/** Resident bytes of the guest's RAM: those of QEMU's mapping of it. */
const ramResident = async (node: string, pid: number): Promise<number> => {
  const maps = await inNode(node, "cat", [`/proc/${pid}/smaps`]);
  let inRam = false;
  let kib = 0;
  for (const line of maps.split("\n")) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) inRam = line.includes("memfd:memory-backend-memfd");
    else if (inRam && line.startsWith("Rss:")) kib += Number(/\d+/.exec(line)?.[0]);
  }
  return kib * 1024;
};

/** Has a guest touch all its RAM, and reads what is charged beside it. Page cache is left out: the kernel takes it back. */
export const measureMemory = async (of: Instance, ramMib: number, probe: Probe): Promise<Memory> => {
  const { nodeName, guest, ip, nics } = of.status ?? {};
  if (nodeName === undefined || guest?.pid === undefined || guest.claimUid === undefined || ip === undefined)
    throw new Error(`${of.metadata.name} does not run: ${JSON.stringify(of.status)}`);
  await statusWithin(probe, ip, 90);
  await ask(probe, ip, `/eat/${ramMib - GUEST_OWN_MIB}`);
  const { usage, pageCache } = await accountsOf(nodeName, guest.claimUid);
  const ram = await ramResident(nodeName, guest.pid);
  const ramBytes = ramMib * MIB;
  return {
    overheadMb: (usage - pageCache - ram) / MIB,
    reservedMb: overheadBytes({ ramBytes, cpus: of.spec.cpu, disks: 1, nics: nics?.length ?? 0 }) / MIB,
    touched: ram / ramBytes,
  };
};
