/** Starts QEMU through `enter`, which confines it, so that it outlives the agent. */
import { spawn } from "node:child_process";
import { open, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { errorText } from "../../errors.ts";
import { nodePid, type NodePaths } from "../../node.ts";
import type { MachinePlan } from "../driver.ts";
import { commandLine, HANDED, QEMU, tapDescriptor } from "./command-line.ts";
import type { ProcessEnd } from "./exit.ts";

export interface Launched {
  /** The pid is QEMU's: nothing on the way forks. */
  pid: number;
  /** Resolves when `enter` has become QEMU: from then on the monitor's socket takes connections. Rejects with what went wrong. */
  entered: Promise<void>;
  /** Resolves when the process has ended; never rejects. */
  ended: Promise<ProcessEnd>;
}

/** What `enter` writes just before it becomes the command. */
const ENTERED = "exec\n";

/** Where a claim's processes live on the node, and where what QEMU says on stderr goes. */
export interface LaunchPlace {
  paths: NodePaths;
  /** The node's own mount point of its cgroups. */
  cgroupRoot: string;
  /** The claim pod's cgroup, relative to every hierarchy. */
  cgroup: string;
  /** It waits for a guest that moves here, instead of booting one. */
  incoming?: boolean;
  /** It is to take the guest over from this process, on the same node. */
  takesOverFrom?: number;
  /** QEMU's trace events that go to its stderr, such as vm_state_notify. */
  trace?: readonly string[];
}

/** The same machine, without CPUs that run, until everything has arrived. Where it listens is told later. */
const INCOMING = ["-S", "-incoming", "defer"];

/** Directory in an instance's `vm` where a QEMU that takes over listens; it is /sockets of that one and below /vm of the other. */
export const SOCKETS = "sockets";

/** What a QEMU that takes over has under a name of its own, until the other one is gone. */
export const nextName = (name: string): string => `${name}.next`;

/** What comes to it by descriptors (RAM) comes first of all, before it makes its machine; the rest as for any guest that moves here. */
const TAKING_OVER = [
  "-incoming",
  JSON.stringify({ "channel-type": "cpr", addr: { transport: "socket", type: "unix", path: "/sockets/cpr" } }),
];

/** Arguments of `enter` for a plan. Pure. */
export function enterArguments(plan: MachinePlan, place: LaunchPlace): string[] {
  const { paths } = place;
  const volumes = new Map(plan.disks.map((disk) => [disk.pool, dirname(disk.path)]));
  const { qmp, qmp2, guestAgent, console } = HANDED;
  const { takesOverFrom, incoming = false } = place;
  const takesOver = takesOverFrom !== undefined;
  return [
    ["--ready", String(READY_FD)],
    ["--cgroup-root", place.cgroupRoot],
    ["--cgroup", place.cgroup],
    ["--runtime", paths.runtime(plan.runtimeVersion)],
    ["--instance", paths.instance(plan.instanceUid)],
    ...[...volumes].map(([pool, directory]) => ["--disk", `${pool}=${directory}`]),
    ["--uid", String(plan.identity.uid)],
    ["--gid", String(plan.identity.gid)],
    ...(plan.accelerator === "KVM" ? [["--kvm"]] : []),
    ...(incoming ? [["--userfaultfd"]] : []),
    ...(takesOver
      ? [
          ["--lock", nextName(LOCK)],
          ["--sockets", SOCKETS],
          ["--from", String(takesOverFrom)],
        ]
      : []),
    ...[qmp, qmp2, guestAgent].map(({ fd, name }) => ["--listen", `${fd}=${takesOver ? nextName(name) : name}`]),
    ["--append", `${console.fd}=${console.name}`],
    ...(takesOver ? plan.nics.map(({ tap }, index) => ["--take-tap", `${tapDescriptor(index)}=${tap}`]) : []),
    ["--", QEMU, ...commandLine(plan, { takesOver }), ...(place.trace ?? []).flatMap((event) => ["-trace", `enable=${event}`])],
    incoming || takesOver ? INCOMING : [],
    takesOver ? TAKING_OVER : [],
  ].flat();
}

/** Held by QEMU for as long as it lives. */
export const LOCK = "lock";

/** First free descriptor of a child. */
const READY_FD = 3;

/** Where QEMU's own messages go: root's file, beside the note. */
export const stderrFile = (paths: NodePaths, instanceUid: string): string => join(paths.instance(instanceUid), STDERR);

export const STDERR = "stderr.log";

/** Starts it detached. Throws only when the node's programs cannot be run at all. */
export async function launch(plan: MachinePlan, place: LaunchPlace): Promise<Launched> {
  const { paths } = place;
  return spawnEnter(join(paths.runtime(plan.runtimeVersion), "enter"), enterArguments(plan, place), {
    stderr: stderrFile(paths, plan.instanceUid) + (place.takesOverFrom === undefined ? "" : nextName("")),
  });
}

async function spawnEnter(enter: string, args: string[], options: { stderr: string }): Promise<Launched> {
  // A file of its own: who still reads the words of the last QEMU keeps them.
  await rm(options.stderr, { force: true });
  const words = await open(options.stderr, "w", 0o600);
  try {
    // emptied by "w"; from here on only appended to, so that it can be cut while QEMU has it open
    const log = await open(options.stderr, "a", 0o600);
    try {
      const child = spawn("nsenter", ["-t", String(nodePid()), "-m", "--", enter, ...args], {
        detached: true,
        cwd: "/",
        env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
        stdio: ["ignore", log.fd, log.fd, "pipe"],
      });
      const ended = new Promise<ProcessEnd>((resolve) => {
        child.once("error", () => resolve({ code: 127, signal: null }));
        child.once("exit", (code, signal) => resolve({ code, signal }));
      });
      const started = new Promise<number>((resolve, reject) => {
        child.once("error", reject);
        child.once("spawn", () => (child.pid === undefined ? reject(new Error("no pid")) : resolve(child.pid)));
      });
      const ready = child.stdio[READY_FD] as Readable;
      const entered = said(ready);
      entered.catch(() => undefined); // whoever waits for it gets it; nobody may wait when the spawn itself failed
      const pid = await started;
      child.unref();
      return { pid, entered, ended };
    } finally {
      await log.close();
    }
  } finally {
    await words.close();
  }
}

async function said(ready: Readable): Promise<void> {
  let text = "";
  try {
    for await (const chunk of ready) text += String(chunk);
  } catch (error) {
    text += errorText(error);
  }
  if (text !== ENTERED) throw new Error(text.replace(ENTERED, "").trim() || "the launcher could not be run on the node");
}
