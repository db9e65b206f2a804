/** libvirt on the nodes, without Kubernetes: its daemon and QEMU from Debian's packages, in a root directory of their own. */
import { randomUUID } from "node:crypto";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { execa } from "execa";
import { machineMirror } from "../../lab/base.ts";
import { madeOnce } from "../../lab/files.ts";
import { inNode, lab } from "../../lab/index.ts";
import { nodeNamed } from "../../lab/identity.ts";
import { inNodeCommand } from "../../lab/node/node.ts";
import { eventually, HopelessError, run } from "../../lab/run.ts";
import type { GuestPort } from "../network.ts";
import { rooted } from "../qemu.ts";
import { issue, makeAuthority, type Authority } from "./certificates.ts";
import { LibvirtGuest } from "./guest.ts";
import { hostFiles } from "./settings.ts";

const SUITE = "trixie";
const PACKAGES = [
  "libvirt-daemon",
  "libvirt-daemon-driver-qemu",
  "libvirt-clients",
  "qemu-system-x86",
  "seabios",
  "libc-bin",
  "coreutils",
  "dash",
];
const HOME = "/var/lib/drover/bench-libvirt";
const script = join(import.meta.dirname, "host.sh");

export interface LibvirtWish {
  name: string;
  node: string;
  port: GuestPort;
  /** QEMU's arguments of a guest of Drover's with the same machine, program first. */
  argv: readonly string[];
  pool: string;
  /** File of the node that the disk begins as. */
  image: string;
  diskBytes: number;
}

/** A node's libvirtd. */
export interface LibvirtHost {
  node: string;
  address: string;
  tls: boolean;
  /** What its QEMUs have said, a file per guest and node. */
  logs: string;
  /** Its /etc, by a path of the node. */
  etc: string;
  virsh: (args: readonly string[], options?: { deadlineMs?: number }) => Promise<string>;
}

export interface LibvirtHosts {
  start: (wish: LibvirtWish) => Promise<LibvirtGuest>;
}

/** The programs, unpacked and not installed: nothing of them starts. The same QEMU package as in Drover's runtime. */
const ensureTree = (): Promise<string> =>
  madeOnce(join(lab().cache, `libvirt-${SUITE}`), async (temporary) => {
    const options = ["--variant=extract", "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", `--include=${PACKAGES.join(",")}`];
    const apt = '--aptopt=APT::Install-Recommends "false"';
    await run("mmdebstrap", [...options, apt, SUITE, temporary, `deb ${await machineMirror()} ${SUITE} main`], {
      deadlineMs: 600_000,
    });
  });

interface Started {
  host: LibvirtHost;
  end: () => Promise<void>;
}

const startHost = async (node: string, tree: string, disks: string, authority: Authority | undefined): Promise<Started> => {
  const { address } = nodeNamed(lab(), node);
  const home = await rooted(node, HOME);
  await rm(home, { recursive: true, force: true });
  await mkdir(join(home, "var/log/libvirt/qemu"), { recursive: true });
  await mkdir(join(home, "var/lib/libvirt"), { recursive: true });
  await mkdir(join(home, "var/cache"), { recursive: true });
  await symlink("../run", join(home, "var/run"));
  for (const [name, content] of Object.entries(hostFiles({ uuid: randomUUID() }))) {
    await mkdir(dirname(join(home, "etc", name)), { recursive: true });
    await writeFile(join(home, "etc", name), content);
  }
  if (authority !== undefined) {
    await mkdir(join(home, "etc/pki/qemu"), { recursive: true });
    await issue(authority, join(home, "etc/pki/qemu"), address);
  }
  const [program = "", ...args] = await inNodeCommand(nodeNamed(lab(), node), ["sh", script, tree, HOME, disks]);
  const daemon = execa(program, args, { stdin: "ignore", reject: false });
  let over: string | undefined;
  void daemon.then(({ exitCode, stderr }) => (over = `libvirtd on ${node} ended with ${exitCode}: ${stderr}`));
  const pid = async (): Promise<string> => {
    const found = await inNode(node, "sh", ["-c", "pgrep -x libvirtd || true"]);
    return found.split("\n")[0] ?? "";
  };
  const virsh: LibvirtHost["virsh"] = async (words, options = {}) => {
    const root = `/proc/${await pidOnce()}/root`;
    return inNode(node, "chroot", [root, "/usr/bin/virsh", "-c", "qemu:///system", ...words], options);
  };
  let known: string | undefined;
  const pidOnce = async (): Promise<string> => (known ??= await pid());
  const end = async (): Promise<void> => {
    const running = await pid();
    if (running !== "") await inNode(node, "kill", [running]);
    await daemon;
    await inNode(node, "rm", ["-rf", HOME]);
  };
  const host: LibvirtHost = {
    node,
    address,
    tls: authority !== undefined,
    etc: `${HOME}/etc`,
    logs: `${HOME}/var/log/libvirt/qemu`,
    virsh,
  };
  try {
    await eventually(`libvirtd of ${node} answers (log: ${HOME}/log)`, async () => {
      if (over !== undefined) throw new HopelessError(over);
      if ((await pid()) === "") return undefined;
      known = undefined;
      await virsh(["version"]);
      return true;
    });
  } catch (cause) {
    const words = await inNode(node, "tail", ["-n", "20", `${HOME}/log`]).catch(() => "no log");
    await end();
    throw new Error(`libvirtd does not start on ${node}: ${words}`, { cause });
  }
  return { host, end };
};

/** Runs `work` with libvirt on both nodes; without, where none is wanted. Nothing of it is left after. */
export const withLibvirt = async (
  wish: { nodes: readonly string[]; pool: string; tls: boolean } | undefined,
  work: (hosts: LibvirtHosts | undefined) => Promise<void>,
): Promise<void> => {
  if (wish === undefined) return work(undefined);
  const tree = await ensureTree();
  const keys = await mkdtemp(join(tmpdir(), "bench-libvirt-"));
  const started: Started[] = [];
  try {
    const authority = wish.tls ? await makeAuthority(keys) : undefined;
    for (const node of wish.nodes) started.push(await startHost(node, tree, `/var/lib/drover/pools/${wish.pool}`, authority));
    const hosts = started.map(({ host }) => host);
    await work({ start: (guest) => LibvirtGuest.start(guest, hosts) });
  } finally {
    for (const { end } of started) await end();
    await rm(keys, { recursive: true, force: true });
  }
};
