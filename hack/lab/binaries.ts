/**
 * Kubernetes, etcd and helm: those on the machine if they are of the right version, else the official releases with their
 * checksums, else built from Go modules (whose checksums are in go.sum). Kept in the cache, named by what they are made from.
 */
import { copyFile, link, mkdir, rename, rm, symlink, utimes } from "node:fs/promises";
import { join } from "node:path";
import { exists, hashOf, keepNewest } from "./files.ts";
import { findGo } from "./go.ts";
import type { Lab } from "./identity.ts";
import type { Progress } from "./progress.ts";
import { fetchRelease, type Release } from "./releases.ts";
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
  release: Release;
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

/** What Go keeps while it builds: gigabytes, of no use once the programs are there. */
const goDirectory = (lab: Lab): string => join(lab.cache, "go");

/** Builds programs of one module in one go, so that they share what they have in common and link side by side. */
const build = async (lab: Lab, wanted: Binary[], directory: string): Promise<void> => {
  const [first] = wanted;
  if (!first) return;
  const go = await findGo();
  const env = {
    CGO_ENABLED: "0",
    GOTOOLCHAIN: "auto",
    GOFLAGS: "-modcacherw",
    GOPATH: join(goDirectory(lab), "path"),
    GOCACHE: join(goDirectory(lab), "cache"),
  };
  const ldflags = `-s -w ${first.ldflags}`.trim();
  // A single program is named by us: Go would call etcd "server".
  const output = wanted.length === 1 ? join(directory, first.name) : `${directory}/`;
  const args = ["build", "-mod=readonly", "-trimpath", "-ldflags", ldflags, "-o", output, ...wanted.map((one) => one.package)];
  await run(go, args, { cwd: join(lab.checkout, "hack", "binaries", first.module), deadlineMs: 5_400_000, env });
};

/** Another name for a file, or a copy where it cannot be one: a later change of the original's name does no harm. */
const keep = async (file: string, target: string): Promise<void> => {
  await rm(target, { force: true });
  await link(file, target).catch(() => copyFile(file, target));
};

/** Programs that the machine has, or whose release the network has. */
const findOne = async (lab: Lab, binary: Binary, target: string, progress: Progress): Promise<boolean> => {
  // An earlier, unkeyed cache counts like PATH: its version is asked for.
  const loose = join(lab.cache, "bin", binary.name);
  const found = (await onPath(binary)) ?? ((await isRight(loose, binary)) ? loose : undefined);
  if (found !== undefined) {
    progress.note(`${binary.name} ${binary.version}: ${found}`);
    await keep(found, target);
    return true;
  }
  return fetchRelease(binary.release, target);
};

/** Puts what was found, fetched or built into place, all of it of the right version. */
const settle = async (binary: Binary, fresh: string, target: string): Promise<void> => {
  if (!(await isRight(fresh, binary)))
    throw new LabError(`what was made as ${binary.name} does not say that it is ${binary.version}`);
  await rename(fresh, target);
};

/** `bin` in the cache names the current programs, for those who do not know the key. */
const publish = async (lab: Lab, binary: Binary, target: string): Promise<void> => {
  const loose = join(lab.cache, "bin", binary.name);
  if (await isRight(loose, binary)) return;
  await mkdir(join(lab.cache, "bin"), { recursive: true });
  const fresh = `${loose}.new.${process.pid}`;
  await rm(fresh, { force: true });
  await symlink(target, fresh);
  await rename(fresh, loose);
};

/** The directory with all binaries, each of the version above. Cached by go.sum and the versions. */
export const ensureBinaries = async (lab: Lab, progress: Progress): Promise<string> => {
  const key = await hashOf(join(lab.checkout, "hack", "binaries"), ["kubernetes/go.sum", "helm/go.sum"], Object.values(versions));
  const directory = join(lab.cache, `bin-${key}`);
  const work = join(directory, `made.new.${process.pid}`);
  await mkdir(work, { recursive: true });
  try {
    const missing: Binary[] = [];
    for (const binary of binaries) if (!(await exists(join(directory, binary.name)))) missing.push(binary);
    const toBuild: Binary[] = [];
    for (const binary of missing) {
      const fresh = join(work, binary.name);
      if (await findOne(lab, binary, fresh, progress)) await settle(binary, fresh, join(directory, binary.name));
      else toBuild.push(binary);
    }
    for (const ldflags of new Set(toBuild.map((one) => one.ldflags))) {
      const together = toBuild.filter((one) => one.ldflags === ldflags);
      const names = together.map((one) => one.name).join(", ");
      await progress.step(`building ${names} ${together[0]?.version} from Go modules`, () => build(lab, together, work));
      for (const binary of together) await settle(binary, join(work, binary.name), join(directory, binary.name));
    }
    for (const binary of binaries) await publish(lab, binary, join(directory, binary.name));
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  await rm(goDirectory(lab), { recursive: true, force: true });
  await utimes(directory, new Date(), new Date());
  await keepNewest(lab.cache, "bin-", 2);
  return directory;
};
