/**
 * What a machine holds that a lab could leave behind, taken twice and compared: processes, mounts, network namespaces, links,
 * routes, firewall rules, cgroups, loop devices, sysctls, and files outside the cache.
 */
import { lstat, readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { hierarchies } from "./cgroups.ts";
import { run } from "./run.ts";

/** Kind -> name of a thing -> what is known of it. */
export type Inventory = Record<string, Record<string, string>>;

export interface Difference {
  kind: string;
  change: "added" | "removed" | "changed";
  name: string;
  text: string;
}

const text = (path: string): Promise<string> => readFile(path, "utf8").catch(() => "");

const asRecord = (lines: string[]): Record<string, string> =>
  Object.fromEntries(lines.filter(Boolean).map((line) => [line, line]));

const processes = async (): Promise<Record<string, string>> => {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid): Promise<[string, string] | undefined> => {
      const stat = await text(`/proc/${pid}/stat`);
      const start = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
      const command = (await text(`/proc/${pid}/cmdline`)).replaceAll("\0", " ").trim();
      // Without a command line it is the kernel's, or a zombie of somebody else.
      if (start === undefined || command === "") return undefined;
      const group = (await text(`/proc/${pid}/cgroup`)).split("\n").map((line) => line.split(":")[2]);
      return [`${pid}@${start}`, `${command} (cgroups ${[...new Set(group)].filter(Boolean).join(" ")})`];
    }),
  );
  return Object.fromEntries(found.filter((one) => one !== undefined));
};

/** Namespaces are known by their inode; they count as long as some process is in them. */
const namespaces = async (): Promise<Record<string, string>> => {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const found: Record<string, string> = {};
  for (const pid of pids) {
    for (const kind of ["net", "mnt"]) {
      const link = await readlink(`/proc/${pid}/ns/${kind}`).catch(() => undefined);
      if (link !== undefined)
        found[link] ??= `process ${pid}: ${(await text(`/proc/${pid}/cmdline`)).replaceAll("\0", " ").trim()}`;
    }
  }
  return found;
};

const mounts = async (): Promise<Record<string, string>> => {
  const lines = (await text("/proc/self/mountinfo")).split("\n").filter(Boolean);
  return Object.fromEntries(lines.map((line) => [line.split(" ")[4] ?? "", line.split(" ").slice(3).join(" ")]));
};

const cgroups = async (): Promise<Record<string, string>> => {
  const found: Record<string, string> = {};
  const walk = async (path: string): Promise<void> => {
    for (const entry of await readdir(path, { withFileTypes: true }).catch(() => [])) {
      if (!entry.isDirectory()) continue;
      found[join(path, entry.name)] = "";
      await walk(join(path, entry.name));
    }
  };
  for (const hierarchy of await hierarchies()) await walk(hierarchy);
  return found;
};

/** Read-only figures, and those that count by themselves. */
const VOLATILE =
  /^\/proc\/sys\/(fs\/(dentry|inode|file|aio|quota|binfmt_misc)|kernel\/(random|pty\/nr|ns_last_pid|sched_domain|perf_event|hung_task_detect_count)|net\/netfilter\/nf_conntrack_count|net\/ipv[46]\/(conf|neigh)\/)/;

const sysctls = async (): Promise<Record<string, string>> => {
  const found: Record<string, string> = {};
  const walk = async (path: string): Promise<void> => {
    for (const entry of await readdir(path, { withFileTypes: true }).catch(() => [])) {
      const full = join(path, entry.name);
      if (VOLATILE.test(`${full}/`) || VOLATILE.test(full)) continue;
      if (entry.isDirectory()) await walk(full);
      else if (((await lstat(full)).mode & 0o200) !== 0) found[full] = (await text(full)).trim();
    }
  };
  await walk("/proc/sys");
  return found;
};

const loops = async (): Promise<Record<string, string>> => {
  const names = (await readdir("/sys/block")).filter((name) => /^loop\d+$/.test(name));
  const backed = await Promise.all(
    names.map(async (name): Promise<[string, string]> => [name, (await text(`/sys/block/${name}/loop/backing_file`)).trim()]),
  );
  return Object.fromEntries(backed.filter(([, file]) => file !== ""));
};

const links = async (): Promise<Record<string, string>> => asRecord(await readdir("/sys/class/net").catch(() => []));

const command = async (program: string, args: string[]): Promise<Record<string, string>> =>
  asRecord((await run(program, args).catch(() => "")).split("\n").map((line) => line.replace(/^#.*|\[\d+:\d+\]/g, "").trim()));

/** Files below directories, by name; their content is not looked at. Directories in `except` are left out. */
const files = async (directories: string[], except: string[]): Promise<Record<string, string>> => {
  const found: Record<string, string> = {};
  const walk = async (path: string): Promise<void> => {
    if (except.includes(path)) return;
    for (const entry of await readdir(path, { withFileTypes: true }).catch(() => [])) {
      const full = join(path, entry.name);
      if (except.includes(full)) continue;
      found[full] = entry.isDirectory() ? "directory" : "file";
      if (entry.isDirectory()) await walk(full);
    }
  };
  for (const directory of directories) await walk(directory);
  return found;
};

/** Where a lab, or the programs it starts, could leave files. */
const WATCHED = [
  "/etc",
  "/run",
  "/var/lib",
  "/var/log",
  "/var/tmp",
  "/tmp",
  "/opt",
  "/usr/sbin",
  "/root/.config",
  "/root/.kube",
  "/root/.local",
];

/** Takes the inventory. `except`: directories whose files do not count, such as the cache. */
export const takeInventory = async (except: string[]): Promise<Inventory> => ({
  process: await processes(),
  namespace: await namespaces(),
  mount: await mounts(),
  link: await links(),
  route: await command("ip", ["route", "show", "table", "all"]),
  route6: await command("ip", ["-6", "route", "show", "table", "all"]),
  firewall: await command("iptables-save", []),
  cgroup: await cgroups(),
  loop: await loops(),
  sysctl: await sysctls(),
  file: await files(WATCHED, except),
});

/** What differs between two inventories. Pure. */
export const differences = (before: Inventory, after: Inventory): Difference[] => {
  const found: Difference[] = [];
  for (const kind of new Set([...Object.keys(before), ...Object.keys(after)])) {
    const [was, is] = [before[kind] ?? {}, after[kind] ?? {}];
    for (const name of Object.keys(is)) {
      if (!(name in was)) found.push({ kind, change: "added", name, text: is[name] ?? "" });
      else if (was[name] !== is[name]) found.push({ kind, change: "changed", name, text: `${was[name]} -> ${is[name]}` });
    }
    for (const name of Object.keys(was)) if (!(name in is)) found.push({ kind, change: "removed", name, text: was[name] ?? "" });
  }
  return found;
};

/**
 * Of differences those that concern a lab: they name it, its files or its addresses, or are a sysctl, which names nobody. For a
 * machine on which others work at the same time; on a quiet one look at all of them. Pure.
 */
export const concerning = (found: Difference[], marks: string[]): Difference[] =>
  found.filter((one) => one.kind === "sysctl" || marks.some((mark) => one.name.includes(mark) || one.text.includes(mark)));

export const describe = (one: Difference): string =>
  `${one.kind} ${one.change}: ${one.name}${one.text === one.name ? "" : ` (${one.text.slice(0, 200)})`}`;
