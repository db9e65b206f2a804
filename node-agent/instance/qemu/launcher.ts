/** Starts QEMU through `enter`, which confines it, so that it outlives the agent. */
import { spawn } from "node:child_process";
import { open, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { errorText } from "../../errors.ts";
import { nodePid, type NodePaths } from "../../node.ts";
import type { MachinePlan } from "../driver.ts";
import { commandLine, HANDED, QEMU } from "./command-line.ts";
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
  /** QEMU's trace events that go to its stderr, such as vm_state_notify. */
  trace?: readonly string[];
}

/** The same machine, without CPUs that run, until everything has arrived. Where it listens is told later. */
const INCOMING = ["-S", "-incoming", "defer"];

/** Arguments of `enter` for a plan. Pure. */
export function enterArguments(plan: MachinePlan, place: LaunchPlace): string[] {
  const { paths } = place;
  const volumes = new Map(plan.disks.map((disk) => [disk.pool, dirname(disk.path)]));
  const { qmp, qmp2, guestAgent, console } = HANDED;
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
    ...(place.incoming === true ? [["--userfaultfd"]] : []),
    ...[qmp, qmp2, guestAgent].map(({ fd, name }) => ["--listen", `${fd}=${name}`]),
    ["--append", `${console.fd}=${console.name}`],
    ["--", QEMU, ...commandLine(plan), ...(place.trace ?? []).flatMap((event) => ["-trace", `enable=${event}`])],
    place.incoming === true ? INCOMING : [],
  ].flat();
}

/** First free descriptor of a child. */
const READY_FD = 3;

/** Where QEMU's own messages go: root's file, beside the note. */
export const stderrFile = (paths: NodePaths, instanceUid: string): string => join(paths.instance(instanceUid), "stderr.log");

/** Starts it detached. Throws only when the node's programs cannot be run at all. */
export async function launch(plan: MachinePlan, place: LaunchPlace): Promise<Launched> {
  const { paths } = place;
  return spawnEnter(join(paths.runtime(plan.runtimeVersion), "enter"), enterArguments(plan, place), {
    stderr: stderrFile(paths, plan.instanceUid),
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
