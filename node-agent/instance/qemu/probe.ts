/** What guests can be run with on this node: found out by running one. */
import { spawn } from "node:child_process";
import { access, mkdtemp, mkdir, readdir, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Duplex } from "node:stream";
import { CommandError, errorText, UserError } from "../../errors.ts";
import { nodePid, onNode, type NodePaths } from "../../node.ts";
import { QEMU } from "./command-line.ts";
import { lastWords } from "./exit.ts";
import { bestCpuModel, machineTypes } from "./facts.ts";
import { queryCpuModels, queryMachines, queryVersion } from "./qmp/commands.ts";
import { QmpSession } from "./qmp/session.ts";

export interface QemuFacts {
  accelerator: "KVM" | "TCG";
  /** Why it is not KVM. */
  acceleratorMessage?: string;
  qemuVersion: string;
  /** Versioned machine types, newest first: the first is what new guests get. */
  machineTypes: string[];
  /** What new guests get. */
  cpuModel: string;
}

export interface ProbeOptions {
  paths: NodePaths;
  runtimeVersion: string;
  /** `auto` takes KVM where it works, else TCG; `kvm` takes nothing else; `tcg` does not look for KVM. */
  mode: "auto" | "kvm" | "tcg";
  signal?: AbortSignal;
}

/** A guest under KVM needs well under a second for this. Some nodes have a /dev/kvm under which it takes for ever. */
const GUEST_MS = 5_000;
/** The same under TCG, on a busy node. */
const EMULATED_GUEST_MS = 30_000;
const FACTS_MS = 30_000;
const PREFIX = "probe-";
/** Nobody: a probe owns nothing. */
const NOBODY = 65_534;

/** The guest: probe.S, assembled. */
const CODE = [
  "+jHAjtiOwI7QvAB8/Pu5AgD04v36vwAQuQAYZjHAZvOrZscGABADIAAAZscGACADMAAAZscGADCDAAAADyDgDCAPIuBmuAAQAAAPIthmuYAAAM",
  "APMg0AAQ8wDwEWCH0PIMBmDQEAAIAPIsDqcHwIALgQAAAAjtiOwI7QvAB8AACNBVkAAABmiQQlgFAAAMcEJYJQAAAIAACOwegQZokEJYZQAAAP",
  "AR1jAAAAsP7mIbD/5qG5gPD6AmnbbU7GQYHDOTAAAP/JdfAxwA+iRTHA+/RBg/gCcvn6sBDm9PTr/VBB/8CwIOYgWEjPZg8fRAAAAAAAAAAAAA",
  "AAAAAAAJogAAAAAAAAkgAAFwDwfAAA/wAAUA==",
];
export const BOOT_SECTOR = Buffer.alloc(512);
BOOT_SECTOR.write(CODE.join(""), "base64");
BOOT_SECTOR.writeUInt16LE(0xaa55, 510);
/** What QEMU ends with when the guest says that it is through: (0x10 << 1) | 1. */
const EXIT_CODE = 33;
/** The firmware reads nothing from a disk of less than a cylinder. */
const DISK_BYTES = 1024 * 1024;

/**
 * Runs a guest of one sector under KVM, else under TCG, confined as every guest is, and asks QEMU what it knows. Takes about a
 * second, or six where KVM hangs. Throws UserError when no guest runs as it should. When it is over, however it ended, none of
 * its processes is left, so that it can be repeated at once.
 */
export async function probe(options: ProbeOptions): Promise<QemuFacts> {
  const { paths, signal } = options;
  await removeLeftovers(paths);
  await mkdir(paths.root, { recursive: true });
  const directory = await mkdtemp(join(paths.root, PREFIX));
  try {
    await mkdir(join(directory, "vm"), { mode: 0o755 });
    await writeFile(join(directory, "vm", "boot.raw"), BOOT_SECTOR, { mode: 0o644 });
    await truncate(join(directory, "vm", "boot.raw"), DISK_BYTES);
    const kvm = options.mode === "tcg" ? "nodeAgent.accelerator is tcg: KVM was not tried" : await tryKvm(options, directory);
    signal?.throwIfAborted();
    if (typeof kvm !== "string") return { accelerator: "KVM", ...kvm };
    if (options.mode === "kvm")
      throw new UserError("NoKvm", `nodeAgent.accelerator is kvm, but this node has no KVM that works: ${kvm}`);
    await requireTcg(options, directory);
    return { accelerator: "TCG", acceleratorMessage: kvm, ...(await askQemu(options, directory, "TCG")) };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** What a runtime can run, whether guests that start now get it or not. Throws UserError when its QEMU does not say. */
export async function askRuntime(options: Omit<ProbeOptions, "mode">): Promise<Pick<QemuFacts, "qemuVersion" | "machineTypes">> {
  await mkdir(options.paths.root, { recursive: true });
  const directory = await mkdtemp(join(options.paths.root, PREFIX));
  try {
    await mkdir(join(directory, "vm"), { mode: 0o755 });
    const { qemuVersion, machineTypes: types } = await askQemu({ ...options, mode: "tcg" }, directory, "TCG");
    return { qemuVersion, machineTypes: types };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

type Facts = Omit<QemuFacts, "accelerator" | "acceleratorMessage">;

/** What guests get under KVM; or why they cannot have it. */
async function tryKvm(options: ProbeOptions, directory: string): Promise<Facts | string> {
  try {
    await access(`/proc/${nodePid()}/root/dev/kvm`);
  } catch {
    return "the node has no /dev/kvm: its CPU has no virtualisation, or it is off in the firmware, or the module is not loaded";
  }
  let facts: Facts;
  try {
    facts = await askQemu(options, directory, "KVM");
  } catch (error) {
    return `the node has a /dev/kvm, but QEMU cannot use it: ${errorText(error)}`;
  }
  const failure = await runGuest(options, directory, "KVM", GUEST_MS);
  return failure === undefined ? facts : `the node has a /dev/kvm, but no guest runs with it: ${failure}`;
}

async function requireTcg(options: ProbeOptions, directory: string): Promise<void> {
  const failure = await runGuest(options, directory, "TCG", EMULATED_GUEST_MS);
  if (failure !== undefined)
    throw new UserError("NoAccelerator", `no guest runs on this node, not even by emulation: ${failure}`);
}

/** What went wrong; undefined when the guest ran. */
async function runGuest(
  options: ProbeOptions,
  directory: string,
  accelerator: "KVM" | "TCG",
  deadlineMs: number,
): Promise<string | undefined> {
  const machine = [
    ["-machine", "q35"],
    ["-m", "64M"],
    ["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"],
    ["-blockdev", "driver=file,node-name=boot,filename=/vm/boot.raw,read-only=on"],
    ["-device", "virtio-blk-pci,drive=boot,bootindex=1"],
  ].flat();
  const { enter, args } = command(options, directory, accelerator, machine);
  try {
    const { signal } = options;
    await onNode(enter, args, { deadlineMs, okCodes: [EXIT_CODE], ...(signal ? { signal } : {}) });
    return undefined;
  } catch (error) {
    options.signal?.throwIfAborted();
    if (!(error instanceof CommandError)) return errorText(error);
    if (error.timedOut) return `it did not come to an end within ${deadlineMs} ms`;
    return lastWords(error.stderr) || errorText(error);
  }
}

async function askQemu(options: ProbeOptions, directory: string, accelerator: "KVM" | "TCG"): Promise<Facts> {
  const { enter, args } = command(options, directory, accelerator, ["-machine", "none", "-qmp", "stdio"]);
  const child = spawn("nsenter", ["-t", String(nodePid()), "-m", "--", enter, ...args], {
    cwd: "/",
    stdio: ["pipe", "pipe", "ignore"],
    timeout: FACTS_MS,
    killSignal: "SIGKILL",
    ...(options.signal ? { signal: options.signal } : {}),
  });
  const ended = new Promise<void>((resolve) => {
    // Also told when it is killed, before its end. Its streams end with it, and the session says so.
    child.on("error", () => {
      if (child.pid === undefined) resolve();
    });
    child.once("exit", () => resolve());
  });
  try {
    // from() takes a pair of Node's own streams too, which its types leave out
    const stdio: object = { readable: child.stdout, writable: child.stdin };
    const qmp = await QmpSession.over(Duplex.from(stdio as Iterable<unknown>), { deadlineMs: FACTS_MS });
    const machines = machineTypes(await queryMachines(qmp));
    const cpuModel = bestCpuModel(await queryCpuModels(qmp));
    const qemuVersion = await queryVersion(qmp);
    if (machines.length === 0) throw new UserError("NoMachineType", `QEMU ${qemuVersion} of the runtime has no q35 machine`);
    if (cpuModel === undefined)
      throw new UserError("NoCpuModel", `QEMU ${qemuVersion} finds none of the CPU models that guests get complete here`);
    return { qemuVersion, machineTypes: machines, cpuModel };
  } finally {
    child.kill("SIGKILL");
    await ended; // the next one takes its place and its lock
  }
}

/** In the agent's own cgroup: a probe ends with its agent. */
function command(
  options: ProbeOptions,
  directory: string,
  accelerator: "KVM" | "TCG",
  machine: string[],
): { enter: string; args: string[] } {
  const runtime = options.paths.runtime(options.runtimeVersion);
  const place = ["--no-cgroup", "--runtime", runtime, "--instance", directory, "--uid", String(NOBODY), "--gid", String(NOBODY)];
  const accel = accelerator === "KVM" ? "kvm" : "tcg,tb-size=32";
  const qemu = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-sandbox", "on", "-accel", accel, ...machine];
  return { enter: join(runtime, "enter"), args: [...place, ...(accelerator === "KVM" ? ["--kvm"] : []), "--", ...qemu] };
}

/** Of probes whose agent was killed. */
async function removeLeftovers(paths: NodePaths): Promise<void> {
  const names = await readdir(paths.root).catch(() => []);
  for (const name of names) if (name.startsWith(PREFIX)) await rm(join(paths.root, name), { recursive: true, force: true });
}
