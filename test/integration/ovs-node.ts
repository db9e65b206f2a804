/**
 * A stand-in for a node: a process in mount and network namespaces of its own, into which nsenter goes as it would into the
 * node's init; and runtime directories made from the Open vSwitch that is installed on this machine.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, rmdir, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { ipHere, Links } from "../../node-agent/nic/links.ts";
import { cannotRunWithout } from "./support/tools.ts";

export interface TestNode {
  /** Pid in whose namespaces the node lives. */
  pid: number;
  directory: string;
  /** Puts a command into the node's network namespace. */
  before: string[];
  links: Links;
  cgroup: string;
  remove(): Promise<void>;
}

/** Whether this machine can play a node; otherwise why not. */
export const cannotPlayNode = (): Promise<string | undefined> =>
  cannotRunWithout(["ovs-vswitchd", "ovsdb-server", "ovs-ofctl", "ip", "nsenter"], "openvswitch-switch, iproute2 and util-linux");

export async function makeNode(name: string): Promise<TestNode> {
  // Sockets lie in it: their paths must stay below 108 bytes.
  const directory = await mkdtemp(join(tmpdir(), `${name}-`));
  const child: ChildProcess = spawn("unshare", ["--mount", "--net", "--propagation", "slave", "--", "sleep", "infinity"], {
    stdio: "ignore",
  });
  const pid = child.pid;
  if (pid === undefined) throw new Error("unshare could not be started");
  await untilComm(pid, "sleep");
  const before = ["nsenter", "-t", String(pid), "-n", "--"];
  const ip = ipHere(before);
  await ip(["link", "set", "lo", "up"]);
  const cgroup = `${name}-${pid}`;
  return {
    pid,
    directory,
    before,
    links: new Links(ip),
    cgroup,
    remove: async () => {
      child.kill("SIGKILL");
      await removeCgroups(cgroup);
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** A runtime directory as the init container leaves it, with this machine's Open vSwitch in it. */
export async function installTree(runtimes: string, version: string): Promise<void> {
  const root = join(runtimes, version);
  const libraries = join(root, "usr/lib/x86_64-linux-gnu");
  for (const part of ["usr/bin", "usr/sbin", "usr/lib/openvswitch-switch", "usr/share/openvswitch"]) {
    await mkdir(join(root, part), { recursive: true });
  }
  await mkdir(libraries, { recursive: true });
  const programs: [string, string][] = [
    ["/usr/lib/openvswitch-switch/ovs-vswitchd", "usr/lib/openvswitch-switch/ovs-vswitchd"],
    ["/usr/sbin/ovsdb-server", "usr/sbin/ovsdb-server"],
    ["/usr/bin/ovsdb-tool", "usr/bin/ovsdb-tool"],
    ["/usr/bin/ovs-ofctl", "usr/bin/ovs-ofctl"],
    ["/usr/bin/dash", "usr/bin/dash"],
  ];
  for (const [from, to] of programs) {
    await cp(from, join(root, to), { dereference: true });
    const { stdout } = await execa("ldd", [from]);
    for (const library of stdout.match(/\/[^\s]+\.so[^\s]*/g) ?? []) {
      await cp(library, join(libraries, library.split("/").at(-1) ?? ""), { dereference: true });
    }
  }
  await cp("/usr/share/openvswitch/vswitch.ovsschema", join(root, "usr/share/openvswitch/vswitch.ovsschema"));
  // As in Debian: this link leads out of the tree, and must not be needed.
  await symlink("/etc/alternatives/ovs-vswitchd", join(root, "usr/sbin/ovs-vswitchd"));
  await writeFile(join(runtimes, "current"), `${version}\n`);
}

async function untilComm(pid: number, comm: string): Promise<void> {
  for (let i = 0; i < 500; i++) {
    const now = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "");
    if (now.trim() === comm) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`process ${pid} did not become ${comm}`);
}

async function removeCgroups(name: string): Promise<void> {
  for (const controller of await readdir("/sys/fs/cgroup")) {
    for (let i = 0; i < 50; i++) {
      const left = await rmdir(join("/sys/fs/cgroup", controller, name)).then(
        () => false,
        (error: NodeJS.ErrnoException) => error.code === "EBUSY",
      );
      if (!left) break;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
