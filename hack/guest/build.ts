/**
 * The tiny guest: Debian's cloud kernel, busybox, the guest agent and a program of our own, on a disk that boots by itself
 * (FAT with syslinux, no partitions). Built from Debian's packages without mounting anything; cached by what it is made from.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { execa } from "execa";

export interface GuestFile {
  file: string;
  /** `sha256:<hex>`, as an Instance's image.checksum wants it. */
  checksum: string;
  /** Bytes of the disk that a guest sees. */
  virtualSizeBytes: number;
}

export interface Guest {
  raw: GuestFile;
  qcow2: GuestFile;
}

const here = import.meta.dirname;
const fatBytes = 56 << 20;
const diskBytes = 64 << 20;
const modules = ["virtio_pci", "virtio_console", "virtio_blk", "virtio_net", "virtio_rng", "button", "evdev"];

interface Run {
  cwd?: string;
  env?: Record<string, string>;
  input?: Uint8Array;
}

const run = async (command: string, args: string[], options: Run = {}): Promise<string> =>
  (await execa(command, args, { timeout: 300_000, ...(options.input ? {} : { stdin: "ignore" as const }), ...options })).stdout;

const sha256 = async (file: string): Promise<string> => {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer);
  return hash.digest("hex");
};

const kernelPackage = async (): Promise<string> => {
  const text = await run("apt-cache", ["depends", "linux-image-cloud-amd64"]);
  const name = /Depends: (linux-image-\S+)/.exec(text)?.[1];
  if (!name) throw new Error("apt knows no linux-image-cloud-amd64: run apt-get update");
  return name;
};

/** Names and versions of what goes in, and our own files: a change of any of them makes a new guest. */
const fingerprint = async (packages: string[]): Promise<string> => {
  const hash = createHash("sha256").update(await run("apt-cache", ["show", "--no-all-versions", ...packages]));
  const files = (await readdir(here, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  for (const file of files.map((entry) => path.join(entry.parentPath, entry.name)).sort()) hash.update(await readFile(file));
  return hash.digest("hex").slice(0, 16);
};

const download = async (packages: string[], into: string): Promise<void> => {
  const debs = path.join(into, "debs");
  await mkdir(debs, { recursive: true });
  await run("apt-get", ["download", "-q", ...packages], { cwd: debs });
  for (const deb of await readdir(debs)) await run("dpkg", ["-x", path.join(debs, deb), path.join(into, "x")]);
};

/** Modules in the order in which insmod must be called, dependencies first. */
const moduleFiles = async (extracted: string, release: string): Promise<string[]> => {
  await run("depmod", ["-b", extracted, release]);
  const found = new Set<string>();
  for (const name of modules) {
    const lines = await run("modprobe", ["-d", extracted, "-S", release, "--show-depends", name]);
    for (const [, file] of lines.matchAll(/^insmod (\S+)/gm)) if (file) found.add(file);
  }
  return [...found];
};

const buildRoot = async (work: string, release: string): Promise<string> => {
  const extracted = path.join(work, "x");
  const root = path.join(work, "root");
  const libraries = path.join(root, "lib/x86_64-linux-gnu");
  for (const folder of ["bin", "sbin", "dev", "proc", "sys", "run", "lib64", "etc/acpi/PWRF", "tmp", "var/run", "modules"]) {
    await mkdir(path.join(root, folder), { recursive: true });
  }
  await mkdir(libraries, { recursive: true });
  await cp(path.join(extracted, "bin/busybox"), path.join(root, "bin/busybox"));
  await cp(path.join(here, "root/init"), path.join(root, "init"));
  await cp(path.join(here, "root/bin-lease"), path.join(root, "bin/lease"));
  await writeFile(
    path.join(root, "etc/acpi/PWRF/00000080"),
    "#!/bin/busybox sh\necho 'GUEST power button' >/dev/console\nsync\npoweroff -f\n",
  );
  for (const file of ["init", "bin/lease", "etc/acpi/PWRF/00000080"]) await chmod(path.join(root, file), 0o755);
  // qemu-ga calls these for guest-shutdown.
  await writeFile(
    path.join(root, "sbin/shutdown"),
    '#!/bin/busybox sh\nsync\ncase "$*" in *-r*) reboot -f ;; *) poweroff -f ;; esac\n',
  );
  await chmod(path.join(root, "sbin/shutdown"), 0o755);

  const order: string[] = [];
  for (const file of await moduleFiles(extracted, release)) {
    const name = path.basename(file);
    await run("strip", ["--strip-debug", "-o", path.join(root, "modules", name), file]);
    order.push(name);
  }
  await writeFile(path.join(root, "modules/order"), `${order.join("\n")}\n`);

  const agent = path.join(extracted, "usr/sbin/qemu-ga");
  await cp(agent, path.join(root, "bin/qemu-ga"));
  const env = { LD_LIBRARY_PATH: path.join(extracted, "usr/lib/x86_64-linux-gnu") };
  const linked = await run("ldd", [agent], { env });
  for (const [, file] of linked.matchAll(/=> (\/\S+)/g))
    if (file) await cp(file, path.join(libraries, path.basename(file)), { dereference: true });
  await cp("/lib64/ld-linux-x86-64.so.2", path.join(root, "lib64/ld-linux-x86-64.so.2"), { dereference: true });

  const sources = (await readdir(path.join(here, "src")))
    .filter((file) => file.endsWith(".c"))
    .map((file) => path.join(here, "src", file));
  await run("gcc", ["-O2", "-Wall", "-static", "-pthread", "-o", path.join(root, "bin/guest"), ...sources]);
  return root;
};

const buildDisk = async (work: string, root: string, release: string): Promise<string> => {
  const names = (await readdir(root, { recursive: true })).sort().join("\n");
  const archive = await execa("cpio", ["-o", "-H", "newc", "--quiet"], {
    cwd: root,
    input: names,
    encoding: "buffer",
    timeout: 60_000,
    maxBuffer: 256 << 20,
  });
  const packed = await execa("gzip", ["-6n"], {
    input: archive.stdout,
    encoding: "buffer",
    timeout: 60_000,
    maxBuffer: 256 << 20,
  });
  await writeFile(path.join(work, "initrd.gz"), packed.stdout);
  await writeFile(
    path.join(work, "syslinux.cfg"),
    "DEFAULT tiny\nPROMPT 0\nTIMEOUT 1\nLABEL tiny\n  KERNEL vmlinuz\n  INITRD initrd.gz\n  APPEND console=ttyS0 quiet loglevel=3 panic=1 tsc=unstable mitigations=off no_timer_check\n",
  );
  const disk = path.join(work, "tiny.raw");
  await writeFile(disk, "");
  await run("truncate", ["-s", String(fatBytes), disk]);
  await run("mkfs.vfat", ["-F", "32", "-i", "d0d0d0d0", disk], { env: { PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin` } });
  await run("syslinux", ["--install", disk]);
  await run("mcopy", ["-i", disk, path.join(work, "x/boot", `vmlinuz-${release}`), "::vmlinuz"]);
  await run("mcopy", ["-i", disk, path.join(work, "initrd.gz"), path.join(work, "syslinux.cfg"), "::"]);
  await run("truncate", ["-s", String(diskBytes), disk]);
  return disk;
};

/** Gives the guest's disk images below `cache`, building them when they are not there. Repeatable; killed half-way it leaves nothing that counts. */
export const buildGuest = async (cache: string): Promise<Guest> => {
  const kernel = await kernelPackage();
  const packages = [kernel, "busybox-static", "qemu-guest-agent", "libglib2.0-0", "liburing2"];
  const home = path.join(cache, "guest", await fingerprint(packages));
  const index = path.join(home, "guest.json");
  const known = await readFile(index, "utf8").then(
    (text) => JSON.parse(text) as Guest,
    () => undefined,
  );
  if (known) return known;

  await mkdir(path.join(cache, "guest"), { recursive: true });
  const work = await mkdtemp(path.join(cache, "guest", "work-"));
  try {
    const release = kernel.replace("linux-image-", "");
    await download(packages, work);
    const raw = await buildDisk(work, await buildRoot(work, release), release);
    const qcow2 = path.join(work, "tiny.qcow2");
    await run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", "-c", raw, qcow2]);
    const ready = path.join(work, "ready");
    await mkdir(ready);
    const describe = async (file: string): Promise<GuestFile> => {
      await rename(file, path.join(ready, path.basename(file)));
      const there = path.join(ready, path.basename(file));
      return {
        file: path.join(home, path.basename(file)),
        checksum: `sha256:${await sha256(there)}`,
        virtualSizeBytes: diskBytes,
      };
    };
    const guest: Guest = { raw: await describe(raw), qcow2: await describe(qcow2) };
    await writeFile(path.join(ready, "guest.json"), JSON.stringify(guest, undefined, 2));
    await rm(home, { recursive: true, force: true });
    await rename(ready, home);
    await stat(index);
    return guest;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
};
