/** Debian packages that the lab needs. Installing one starts no daemon, and leaves apt's own settings as they were. */
import { constants } from "node:fs";
import { access, chmod, readFile, rename, rm, writeFile } from "node:fs/promises";
import { exists } from "./files.ts";
import { LabError, run } from "./run.ts";

/** Package -> a program or file it brings: apt is asked only for what is missing. */
const wanted: [name: string, brings: string][] = [
  ["btrfs-progs", "/usr/bin/btrfs"],
  ["buildah", "/usr/bin/buildah"],
  ["busybox-static", "/bin/busybox"],
  ["containerd", "/usr/bin/containerd"],
  ["containernetworking-plugins", "/usr/lib/cni/bridge"],
  ["cpio", "/usr/bin/cpio"],
  ["curl", "/usr/bin/curl"],
  ["dosfstools", "/usr/sbin/mkfs.vfat"],
  ["gcc", "/usr/bin/gcc"],
  ["iproute2", "/usr/bin/ip"],
  ["iptables", "/usr/sbin/iptables"],
  ["kmod", "/usr/sbin/modprobe"],
  ["libc6-dev", "/usr/include/stdlib.h"],
  ["mawk", "/usr/bin/mawk"],
  ["mmdebstrap", "/usr/bin/mmdebstrap"],
  ["mtools", "/usr/bin/mcopy"],
  ["openssl", "/usr/bin/openssl"],
  // Debian 12 has the storage daemon there, Debian 13 in qemu-utils.
  ["qemu-system-common", "/usr/bin/qemu-storage-daemon"],
  ["qemu-utils", "/usr/bin/qemu-img"],
  ["runc", "/usr/sbin/runc"],
  ["syslinux", "/usr/bin/syslinux"],
  ["util-linux", "/usr/bin/nsenter"],
  ["xz-utils", "/usr/bin/xz"],
  // For probes and for the tests that need a switch and databases of their own.
  ["binutils", "/usr/bin/ld"],
  ["ethtool", "/usr/sbin/ethtool"],
  ["openvswitch-common", "/usr/bin/ovs-appctl"],
  ["openvswitch-switch", "/usr/bin/ovs-vsctl"],
  ["ovn-central", "/usr/bin/ovn-northd"],
  ["ovn-common", "/usr/bin/ovn-nbctl"],
  ["ovn-host", "/usr/bin/ovn-controller"],
  ["procps", "/usr/bin/pgrep"],
];

const POLICY = "/usr/sbin/policy-rc.d";
/** hack/bootstrap.sh writes a line that begins the same. */
const OURS = "# Written by Drover's";
const DENY = `#!/bin/sh\n${OURS} lab while it installs packages: nothing may start.\nexit 101\n`;
/** Somebody's own policy is kept under a name that a later run finds again, should this one be killed. */
const ASIDE = `${POLICY}.before-drover`;

/** Puts the machine's own policy back, also after a run that was killed. May be repeated. */
export const restorePolicy = async (): Promise<void> => {
  if ((await readFile(POLICY, "utf8").catch(() => "")).includes(OURS)) await rm(POLICY);
  if (await exists(ASIDE)) await rename(ASIDE, POLICY);
};

/** Runs work while no package's script may start a daemon; the machine's own policy, if any, is put back after. */
const withoutDaemons = async (work: () => Promise<void>): Promise<void> => {
  await restorePolicy();
  const before = await readFile(POLICY, "utf8").catch(() => undefined);
  // A policy that starts nothing will do.
  if (before?.includes("exit 101") !== true) {
    if (before !== undefined) await rename(POLICY, ASIDE);
    await writeFile(POLICY, DENY);
    await chmod(POLICY, 0o755);
  }
  try {
    await work();
  } finally {
    await restorePolicy();
  }
};

const apt = (args: string[], deadlineMs: number): Promise<string> =>
  run("apt-get", ["-o", "DPkg::Lock::Timeout=300", "-qq", ...args], { deadlineMs, env: { DEBIAN_FRONTEND: "noninteractive" } });

/** Installs packages; a list of packages gone stale is refreshed once. May be repeated. */
export const installPackages = (names: string[]): Promise<void> =>
  withoutDaemons(async () => {
    const install = ["install", "-y", "--no-install-recommends", ...names];
    try {
      await apt(install, 900_000);
    } catch (error) {
      if (!(error instanceof LabError)) throw error;
      await apt(["update"], 300_000);
      await apt(install, 900_000);
    }
  });

const BACKPORTS = "/etc/apt/sources.list.d/drover-lab-backports.sources";

/** Runs work with Debian 12's backports among apt's sources, from the mirror it already uses. */
export const withBackports = async (work: () => Promise<void>): Promise<void> => {
  const { machineMirror } = await import("./base.ts");
  const source = ["Types: deb", `URIs: ${await machineMirror()}`, "Suites: bookworm-backports", "Components: main"];
  await writeFile(BACKPORTS, `${[...source, "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg"].join("\n")}\n`);
  try {
    await apt(["update"], 300_000);
    await work();
  } finally {
    await rm(BACKPORTS, { force: true });
  }
};

const brought = (path: string): Promise<boolean> =>
  access(path, constants.R_OK).then(
    () => true,
    () => exists(path.replace(/^\/usr\/s?bin\//, path.includes("/sbin/") ? "/sbin/" : "/bin/")),
  );

/** Names of packages whose files are not on this machine. */
export const missingPackages = async (): Promise<string[]> => {
  const there = await Promise.all(wanted.map(([, path]) => brought(path)));
  return wanted.filter((_, i) => there[i] !== true).map(([name]) => name);
};
