/** What a node has that runs guests: a runtime, cgroups as the kubelet makes them, pools; all under names of this test's own. */
import { createHash, randomUUID } from "node:crypto";
import { chown, copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, rmdir, truncate, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { execa } from "execa";
import { buildGuest } from "../../../hack/guest/build.ts";
import { machineMirror } from "../../../hack/lab/base.ts";
import type { MachinePlan } from "../../../node-agent/instance/driver.ts";
import { nodePaths, type NodePaths } from "../../../node-agent/node.ts";
import { hierarchies } from "../../../node-agent/ovs/cgroup.ts";
import type { CgroupPlace } from "../../../node-agent/instance/qemu/cgroup.ts";
import { cannotRunWithout } from "../support/tools.ts";

const CACHE = join(process.env["DROVER_CACHE"] ?? "/var/cache/drover", "runtime-test");
const CGROUPS = "/sys/fs/cgroup";
const ENTER = new URL("../../../node-agent/instance/qemu/enter.c", import.meta.url).pathname;
const VIEW = new URL("../../../node-agent/instance/qemu/view.c", import.meta.url).pathname;
const GUEST = new URL("guest.S", import.meta.url).pathname;

export const RUNTIME = "test";
/** Another QEMU of the same major version: 10.0.2, where RUNTIME has the one of Debian 13. */
export const OTHER_RUNTIME = "other";

/** What a runtime is made of. Of backports every package must be asked for that is to come from there. */
interface Source {
  suite: string;
  packages: string;
  more: (mirror: string) => string[];
}
const COMMON = "libc-bin,busybox-static";
const SOURCES: Record<string, Source> = {
  [RUNTIME]: { suite: "trixie", packages: `qemu-system-x86,seabios,${COMMON}`, more: () => [] },
  [OTHER_RUNTIME]: {
    suite: "bookworm",
    packages: `${["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios"].map((name) => `${name}/bookworm-backports`).join(",")},${COMMON}`,
    more: (mirror) => [`deb ${mirror} bookworm-backports main`],
  },
};

const LOG_DISK_BYTES = 96 * 2 ** 20;

/** Why this machine cannot run guests of Drover's; undefined when it can. */
export const cannotRunGuests = (): Promise<string | undefined> =>
  cannotRunWithout(["mmdebstrap", "gcc", "ld", "nsenter", "ip"], "mmdebstrap, gcc, binutils, util-linux and iproute2");

/** A runtime directory as the runtime image has it: QEMU's files from the cache, the launcher built from this tree. */
export async function ensureRuntime(version: string = RUNTIME): Promise<void> {
  const source = SOURCES[version];
  if (source === undefined) throw new Error(`no such runtime: ${version}`);
  const { suite, packages, more } = source;
  const runtime = join(CACHE, version);
  await mkdir(runtime, { recursive: true });
  const ready = await readFile(join(runtime, "packages"), "utf8").catch(() => "");
  if (ready !== packages) {
    const tree = await mkdtemp(join(CACHE, "tree-"));
    const hooks = "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr";
    const options = ["--variant=extract", hooks, `--include=${packages}`, '--aptopt=APT::Install-Recommends "false"'];
    const mirror = await machineMirror();
    const sources = [`deb ${mirror} ${suite} main`, ...more(mirror)];
    await execa("mmdebstrap", [...options, suite, tree, ...sources], { timeout: 600_000 });
    await rm(join(runtime, "usr"), { recursive: true, force: true });
    await rename(join(tree, "usr"), join(runtime, "usr")).catch((error: unknown) => {
      // another test has made the same meanwhile
      if (!(error instanceof Error) || !("code" in error) || error.code !== "ENOTEMPTY") throw error;
    });
    await rm(tree, { recursive: true });
    await writeFile(join(runtime, "packages"), packages);
  }
  for (const code of [ENTER, VIEW]) {
    const program = join(runtime, basename(code, ".c"));
    const made = `${program}.${process.pid}`;
    await execa("gcc", ["-O2", "-static", "-s", "-Wall", "-Wextra", "-Werror", "-o", made, code], { timeout: 60_000 });
    await rename(made, program);
  }
}

/** What a guest does: a definition for guest.S; LINUX is the lab's tiny guest. */
export type GuestKind =
  | "IDLE"
  | "POLITE"
  | "CHATTER"
  | "PANIC"
  | "LINUX"
  /** The same, with room on its disk for its record log. */
  | "LINUX-LOG"
  | `SHUTDOWN -DTICKS=${number}`
  | `EATER -DEAT_MIB=${number}`;

export interface Machine {
  paths: NodePaths;
  cgroups: CgroupPlace;
  /** Makes the cgroups of a pod; memory limit in MiB. Gives its uid. */
  pod(memoryMib?: number): Promise<string>;
  /** Takes a pod's cgroups away as the kubelet does: whoever is in them is killed. */
  removePod(podUid: string): Promise<void>;
  /** Plan of a small guest that does what `kind` says; its disk belongs to `owner`. */
  plan(
    kind: GuestKind,
    options: { instanceUid: string; owner: { uid: number; gid: number }; memoryMib?: number },
  ): Promise<MachinePlan>;
  /** Every process in this machine's pods. */
  processes(): Promise<number[]>;
  remove(): Promise<void>;
}

/** `node` tells several machines of one test apart. */
export async function makeMachine(node = ""): Promise<Machine> {
  await ensureRuntime();
  const name = `drover-qt-${process.pid}${node}`;
  const root = join("/var/lib", name);
  await mkdir(join(root, "instances"), { recursive: true });
  const paths = { ...nodePaths(root), runtime: (version: string) => join(CACHE, version) };
  const all = await hierarchies(CGROUPS);
  const below = (hierarchy: string): string => join(hierarchy, name);
  const podPath = (podUid: string): string => `kubepods/burstable/pod${podUid}`;

  const processes = async (): Promise<number[]> => {
    const files = (await Promise.all(all.map((one) => walk(below(one))))).flat();
    const texts = await Promise.all(files.map((directory) => readFile(join(directory, "cgroup.procs"), "utf8").catch(() => "")));
    return [...new Set(texts.flatMap((text) => text.split("\n").filter(Boolean).map(Number)))];
  };
  const removeBelow = async (part: string): Promise<void> => {
    for (const hierarchy of all) {
      const found = await walk(join(below(hierarchy), part));
      for (const directory of found.toReversed()) await removeEmptied(directory);
    }
  };

  return {
    paths,
    cgroups: { root: CGROUPS, parent: name },
    processes,
    async pod(memoryMib) {
      const podUid = randomUUID();
      for (const hierarchy of all) {
        const directory = join(below(hierarchy), podPath(podUid));
        await mkdir(directory, { recursive: true });
        await fillCpusets(hierarchy, join(name, podPath(podUid)));
        if (memoryMib === undefined) continue;
        const limit = String(memoryMib * 1024 * 1024);
        await writeFile(join(directory, "memory.limit_in_bytes"), limit, { flag: "r+" }).catch(() => undefined);
      }
      return podUid;
    },
    async removePod(podUid) {
      for (const hierarchy of all) {
        for (const directory of await walk(join(below(hierarchy), podPath(podUid)))) {
          const pids = await readFile(join(directory, "cgroup.procs"), "utf8").catch(() => "");
          for (const pid of pids.split("\n").filter(Boolean)) killQuietly(Number(pid));
        }
      }
      await removeBelow(podPath(podUid));
    },
    async plan(kind, { instanceUid, owner, memoryMib = 64 }) {
      const volumes = paths.volumes("p1", instanceUid);
      const disk = join(volumes, "root.raw");
      await mkdir(volumes, { recursive: true });
      if (kind === "LINUX" || kind === "LINUX-LOG") {
        await copyFile((await buildGuest(dirname(CACHE))).raw.file, disk);
        if (kind === "LINUX-LOG") await truncate(disk, LOG_DISK_BYTES);
      } else {
        await copyFile(await bootSector(kind), disk);
        await truncate(disk, 1024 * 1024);
      }
      await chown(disk, owner.uid, owner.gid);
      return {
        instanceUid,
        namespace: "test",
        name: "guest",
        claimUid: "",
        identity: owner,
        cpus: 1,
        memoryBytes: memoryMib * 1024 * 1024,
        disks: [{ id: "root", pool: "p1", path: disk }],
        nics: [],
        machineType: "pc-q35-10.0",
        cpuModel: "Westmere-v1",
        accelerator: "TCG",
        runtimeVersion: RUNTIME,
      };
    },
    async remove() {
      for (const pid of await processes()) killQuietly(pid);
      await removeBelow("");
      await rm(root, { recursive: true, force: true });
    },
  };
}

/** A boot sector that does what its kind says. */
const bootSector = (kind: GuestKind): Promise<string> => assembled(GUEST, ["-m32", ...`-D${kind}`.split(" ")], "elf_i386");

/** A boot sector of the agent's own, assembled from its source. */
export const assemble = (name: string): Promise<string> => assembled(join(dirname(ENTER), name), ["-m64"], "elf_x86_64");

/** The path of the assembled file, kept by what it is made of. */
async function assembled(source: string, options: string[], emulation: string): Promise<string> {
  const hash = createHash("sha256")
    .update(await readFile(source))
    .update(options.join(" "));
  const file = join(CACHE, `sector-${hash.digest("hex").slice(0, 12)}.bin`);
  const object = `${file}.${process.pid}.o`;
  await execa("gcc", [...options, "-c", "-o", object, source], { timeout: 60_000 });
  await execa("ld", ["-m", emulation, "-Ttext", "0x7c00", "--oformat", "binary", "-o", `${object}.bin`, object], {
    timeout: 60_000,
  });
  await rm(object);
  await rename(`${object}.bin`, file);
  return file;
}

/** A directory and all below it, parents first; none when it is not there. */
async function walk(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => undefined);
  if (!entries) return [];
  const inner = await Promise.all(
    entries.filter((entry) => entry.isDirectory()).map((entry) => walk(join(directory, entry.name))),
  );
  return [directory, ...inner.flat()];
}

/** On v1 a cpuset takes no process before it has CPUs and memory nodes. */
async function fillCpusets(hierarchy: string, path: string): Promise<void> {
  let directory = hierarchy;
  for (const part of path.split("/")) {
    for (const file of ["cpuset.cpus", "cpuset.mems"]) {
      const value = await readFile(join(directory, file), "utf8").catch(() => "");
      if (value.trim() !== "") await writeFile(join(directory, part, file), value, { flag: "r+" }).catch(() => undefined);
    }
    directory = join(directory, part);
  }
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // gone already
  }
}

/** A killed process leaves its cgroup a little later. */
async function removeEmptied(directory: string): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      await rmdir(directory);
      return;
    } catch (error) {
      if (!(error instanceof Error && "code" in error) || error.code === "ENOENT") return;
      if (error.code !== "EBUSY" || tries > 400) throw error;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}
