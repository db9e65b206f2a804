/**
 * Kubernetes, etcd and helm: those on the machine if they are of the right version, else the official releases with their
 * checksums, else built from Go modules (whose checksums are in go.sum). Kept in the cache, named by what they are made from.
 */
import { chmod, mkdir, readFile, rename, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exists, hashOf, keepNewest, sha256Of } from "./files.ts";
import { findGo } from "./go.ts";
import type { Lab } from "./identity.ts";
import type { Progress } from "./progress.ts";
import { LabError, run } from "./run.ts";

export const versions = { kubernetes: "v1.34.4", etcd: "v3.6.4", helm: "v3.21.4" };

interface Binary {
  name: string;
  /** Arguments that make it print its version, and what of that is the version. */
  asks: string[];
  version: string;
  module: "kubernetes" | "helm";
  package: string;
  ldflags: string;
  /** Where a release lies, and the file with its checksum; a tar.gz has the program at `member`. */
  release: { url: string; checksum: string; member?: string };
}

const minor = versions.kubernetes.split(".")[1] ?? "";
const kubernetesFlags = [
  ["gitVersion", versions.kubernetes],
  ["gitMajor", "1"],
  ["gitMinor", minor],
  ["gitTreeState", "clean"],
]
  .map(([name, value]) => `-X k8s.io/component-base/version.${name}=${value}`)
  .join(" ");

const kubernetes = (name: string): Binary => {
  const url = `https://dl.k8s.io/release/${versions.kubernetes}/bin/linux/${goArch()}/${name}`;
  return {
    name,
    asks: name === "kubectl" ? ["version", "--client"] : ["--version"],
    version: versions.kubernetes,
    module: "kubernetes",
    package: `k8s.io/kubernetes/cmd/${name}`,
    ldflags: kubernetesFlags,
    release: { url, checksum: `${url}.sha256` },
  };
};

const goArch = (): string => (process.arch === "x64" ? "amd64" : process.arch);

const etcdUrl = `https://github.com/etcd-io/etcd/releases/download/${versions.etcd}`;
const etcdName = `etcd-${versions.etcd}-linux-${goArch()}`;
const helmUrl = `https://get.helm.sh/helm-${versions.helm}-linux-${goArch()}.tar.gz`;

const helmFlags = [
  ["internal/version.version", versions.helm],
  ["pkg/chartutil.k8sVersionMajor", "1"],
  ["pkg/chartutil.k8sVersionMinor", minor],
  ["pkg/lint/rules.k8sVersionMajor", "1"],
  ["pkg/lint/rules.k8sVersionMinor", minor],
]
  .map(([name, value]) => `-X helm.sh/helm/v3/${name}=${value}`)
  .join(" ");

const binaries: Binary[] = [
  ...["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl"].map(kubernetes),
  {
    name: "etcd",
    asks: ["--version"],
    version: versions.etcd.slice(1),
    module: "kubernetes",
    package: "go.etcd.io/etcd/server/v3",
    ldflags: "",
    release: { url: `${etcdUrl}/${etcdName}.tar.gz`, checksum: `${etcdUrl}/SHA256SUMS`, member: `${etcdName}/etcd` },
  },
  {
    name: "helm",
    asks: ["version", "--short"],
    version: versions.helm,
    module: "helm",
    package: "helm.sh/helm/v3/cmd/helm",
    ldflags: helmFlags,
    release: { url: helmUrl, checksum: `${helmUrl}.sha256sum`, member: `linux-${goArch()}/helm` },
  },
];

/** Whether what a program prints about itself names exactly that version (1.34.4 is not 1.34.40). Pure. */
export const namesVersion = (printed: string, version: string): boolean =>
  new RegExp(`(^|[^0-9.])${version.replaceAll(".", "\\.").replace(/^v/, "v?")}($|[^0-9.])`).test(printed);

const isRight = async (path: string, binary: Binary): Promise<boolean> => {
  if (!(await exists(path))) return false;
  const printed = await run(path, binary.asks, { deadlineMs: 20_000 }).catch((error: unknown) => {
    if (error instanceof LabError) return "";
    throw error;
  });
  return namesVersion(printed, binary.version);
};

const onPath = async (binary: Binary): Promise<string | undefined> => {
  for (const directory of (process.env["PATH"] ?? "").split(":")) {
    const path = join(directory, binary.name);
    if (directory !== "" && (await isRight(path, binary))) return path;
  }
  return undefined;
};

/** The checksum for a file's name in a checksum file: alone, or in a list of `sum  name`. Pure. */
export const checksumIn = (text: string, name: string): string | undefined => {
  const lines = text
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/\s+\*?/));
  const [only] = lines;
  if (lines.length === 1 && only?.length === 1) return /^[0-9a-f]{64}$/.test(only[0] ?? "") ? only[0] : undefined;
  const line = lines.find((parts) => parts[1] === name);
  return /^[0-9a-f]{64}$/.test(line?.[0] ?? "") ? line?.[0] : undefined;
};

/** Fetches a release; false at once when the network does not have it. Throws only when what came is not what its checksum says. */
const fetchRelease = async (binary: Binary, target: string): Promise<boolean> => {
  const { url, checksum, member } = binary.release;
  const curl = [
    "--fail",
    "--silent",
    "--show-error",
    "--location",
    "--connect-timeout",
    "5",
    "--speed-limit",
    "20000",
    "--speed-time",
    "15",
  ];
  const sums = await run("curl", [...curl, checksum], { deadlineMs: 20_000 }).catch(() => undefined);
  const name = url.split("/").at(-1) ?? "";
  const wanted = sums === undefined ? undefined : checksumIn(sums, name);
  if (wanted === undefined) return false;
  const file = `${target}.download`;
  try {
    await run("curl", [...curl, "--output", file, url], { deadlineMs: 600_000 });
    const got = await sha256Of(file);
    if (got !== wanted) throw new LabError(`${url} has sha256 ${got}, its checksum file says ${wanted}: not used`);
    if (member === undefined) await rename(file, target);
    else await writeFile(target, await untar(file, member));
    await chmod(target, 0o755);
    return true;
  } catch (error) {
    if (error instanceof LabError && !error.message.includes("sha256")) return false;
    throw error;
  } finally {
    await rm(file, { force: true });
  }
};

const untar = async (file: string, member: string): Promise<Buffer> => {
  const directory = `${file}.d`;
  try {
    await mkdir(directory, { recursive: true });
    await run("tar", ["-xzf", file, "-C", directory, member], { deadlineMs: 60_000 });
    return await readFile(join(directory, member));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
};

const build = async (lab: Lab, binary: Binary, target: string): Promise<void> => {
  const go = await findGo();
  const source = join(lab.checkout, "hack", "binaries", binary.module);
  const ldflags = `-s -w ${binary.ldflags}`.trim();
  await run(go, ["build", "-mod=readonly", "-trimpath", "-ldflags", ldflags, "-o", target, binary.package], {
    cwd: source,
    deadlineMs: 3_600_000,
    env: { CGO_ENABLED: "0", GOTOOLCHAIN: "auto", GOFLAGS: "", HOME: process.env["HOME"] ?? tmpdir() },
  });
};

/** The directory with all binaries, each of the version above. Cached by go.mod and go.sum. */
export const ensureBinaries = async (lab: Lab, progress: Progress): Promise<string> => {
  const key = await hashOf(join(lab.checkout, "hack", "binaries"), ["kubernetes/go.sum", "helm/go.sum"], Object.values(versions));
  const directory = join(lab.cache, `bin-${key}`);
  await mkdir(directory, { recursive: true });
  for (const binary of binaries) {
    const target = join(directory, binary.name);
    if (await exists(target)) continue;
    // An earlier, unkeyed cache counts like PATH: its version is asked for.
    const loose = join(lab.cache, "bin", binary.name);
    const found = (await onPath(binary)) ?? ((await isRight(loose, binary)) ? loose : undefined);
    if (found !== undefined) {
      progress.note(`${binary.name} ${binary.version}: ${found}`);
      await symlink(found, target);
      continue;
    }
    await progress.step(`${binary.name} ${binary.version}`, async () => {
      const fresh = `${target}.new.${process.pid}`;
      try {
        if (!(await fetchRelease(binary, fresh))) await build(lab, binary, fresh);
        if (!(await isRight(fresh, binary)))
          throw new LabError(`what was made as ${binary.name} does not say that it is ${binary.version}`);
        await rename(fresh, target);
      } finally {
        await rm(fresh, { force: true });
      }
    });
  }
  await utimes(directory, new Date(), new Date());
  await keepNewest(lab.cache, "bin-", 2);
  return directory;
};
