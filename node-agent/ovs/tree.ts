/**
 * A version of Open vSwitch on the node: a directory with a `usr/` of its own, run by its own loader and libraries.
 * So its programs need nothing of the node but the kernel, see the node's files as they are, and no mount has to outlive a pod.
 */
import { readFile, readdir, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { UserError, errorCode } from "../errors.ts";
import { onNode, type OnNodeOptions } from "../node.ts";
import type { ExecResult } from "../types.ts";

export interface OvsTree {
  version: string;
  root: string;
  /** The dynamic loader of the tree. */
  loader: string;
  /** Directory of its libraries. */
  libraries: string;
  vswitchd: string;
  ovsdbServer: string;
  ovsdbTool: string;
  ovsOfctl: string;
  shell: string;
  schema: string;
}

const VERSION = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** The version that should run: as told, else as the init container wrote it to `current`. Throws UserError when there is none. */
export async function wantedVersion(runtimes: string, told: string | undefined): Promise<string> {
  const version = told || (await readFile(join(runtimes, "current"), "utf8").catch(() => "")).trim();
  if (VERSION.test(version)) return version;
  throw new UserError(
    "SwitchRuntimeMissing",
    `${join(runtimes, "current")} does not name a version of Open vSwitch ("${version.slice(0, 40)}"); the init container of this pod writes it`,
  );
}

/** Finds the programs of a version. Throws UserError when the directory is not a whole tree. */
export async function openTree(runtimes: string, version: string): Promise<OvsTree> {
  const root = join(runtimes, version);
  const tree = findPrograms(root, version, await listing(root));
  if (typeof tree === "string") {
    throw new UserError("SwitchRuntimeBroken", `${root} is no whole Open vSwitch: ${tree} is missing; delete it and this pod`);
  }
  return tree;
}

/** Files of the directories in which programs can lie, as paths below the root. */
async function listing(root: string): Promise<string[]> {
  const names: string[] = [];
  const add = async (directory: string): Promise<string[]> => {
    const found = await readdir(join(root, directory)).catch((error: unknown) => {
      if (errorCode(error) === "ENOENT" || errorCode(error) === "ENOTDIR") return [];
      throw error;
    });
    names.push(...found.map((name) => `${directory}/${name}`));
    return found;
  };
  for (const name of await add("usr/lib")) if (name.endsWith("-linux-gnu")) await add(`usr/lib/${name}`);
  for (const directory of ["usr/bin", "usr/sbin", "usr/lib/openvswitch-switch", "usr/share/openvswitch"]) await add(directory);
  return names;
}

/** The tree made of these files (paths below root), or the first thing that is missing. Pure. */
export function findPrograms(root: string, version: string, files: readonly string[]): OvsTree | string {
  const have = new Set(files);
  const loader = files.find((file) => /^usr\/lib\/[^/]+-linux-gnu\/ld-linux[^/]*\.so\.\d+$/.test(file));
  if (loader === undefined) return "usr/lib/*-linux-gnu/ld-linux*.so.*";
  const missing: string[] = [];
  const one = (...candidates: [string, ...string[]]): string => {
    const found = candidates.find((file) => have.has(file));
    if (found === undefined) missing.push(candidates[0]);
    return join(root, found ?? candidates[0]);
  };
  const tree: OvsTree = {
    version,
    root,
    loader: join(root, loader),
    libraries: join(root, loader, ".."),
    // Debian's usr/sbin/ovs-vswitchd is a link through /etc/alternatives, which is not in the tree.
    vswitchd: one("usr/lib/openvswitch-switch/ovs-vswitchd", "usr/sbin/ovs-vswitchd"),
    ovsdbServer: one("usr/sbin/ovsdb-server"),
    ovsdbTool: one("usr/bin/ovsdb-tool"),
    ovsOfctl: one("usr/bin/ovs-ofctl"),
    shell: one("usr/bin/dash", "usr/bin/sh"),
    schema: one("usr/share/openvswitch/vswitch.ovsschema"),
  };
  return missing[0] ?? tree;
}

/** How a program of the tree is run: by the tree's loader, with the tree's libraries, not those that the node's cache names. */
export const commandOf = (tree: OvsTree, program: string, args: readonly string[]): string[] => [
  tree.loader,
  "--inhibit-cache",
  "--library-path",
  tree.libraries,
  program,
  ...args,
];

/** Runs a program of the tree on the node to its end. Throws CommandError. */
export function runInTree(
  tree: OvsTree,
  program: string,
  args: readonly string[],
  options: OnNodeOptions = {},
): Promise<ExecResult> {
  const [loader = tree.loader, ...rest] = commandOf(tree, program, args);
  return onNode(loader, rest, options);
}

/** Version of the tree that a process runs from, by the path of its executable; undefined for a stranger. */
export function versionOfExecutable(runtimes: string, executable: string): string | undefined {
  if (!executable.startsWith(`${runtimes}/`)) return undefined;
  const version = executable.slice(runtimes.length + 1).split("/")[0];
  return version !== undefined && VERSION.test(version) ? version : undefined;
}

/** Deletes versions that nothing uses. Temporary names of a copy under way do not match and stay. */
export async function removeUnused(runtimes: string, used: ReadonlySet<string>): Promise<string[]> {
  const entries = await readdir(runtimes, { withFileTypes: true });
  const unused = entries.filter((entry) => entry.isDirectory() && VERSION.test(entry.name) && !used.has(entry.name));
  for (const entry of unused) await rm(join(runtimes, basename(entry.name)), { recursive: true, force: true });
  return unused.map((entry) => entry.name);
}
