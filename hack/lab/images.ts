/** Drover's images, built from manifests/Containerfile without a Docker engine; each kept in the cache by what it was made from. */
import { cp, mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ensureBaseTar } from "./base.ts";
import { exists, hashOf, keepNewest, madeOnce } from "./files.ts";
import type { Lab } from "./identity.ts";
import type { Progress } from "./progress.ts";
import { LabError, run, together } from "./run.ts";

const targets = ["operator", "node-agent", "runtime", "ovn", "holder"] as const;
export type ImageTarget = (typeof targets)[number];

export interface BuiltImage {
  target: ImageTarget | "pause";
  /** As pods name it. */
  name: string;
  /** Says what it was made from; another key, another content. */
  key: string;
  /** docker-archive in the cache. */
  archive: string;
}

export const imageName = (target: ImageTarget): string => `localhost/drover-${target}:dev`;

const packages = ["package.json", "package-lock.json", ".npmrc"];
const code = [...packages, "manifests/images", "crds", "kube", "ovsdb", "operator", "node-agent"];

const launcher = ["node-agent/instance/qemu/enter.c", "node-agent/instance/qemu/view.c"];

/** What each image is made from, besides the bases and the Containerfile. */
const inputs: Record<ImageTarget, string[]> = {
  operator: code,
  "node-agent": code,
  runtime: ["manifests/images", "manifests/holder", ...launcher],
  ovn: ["manifests/images"],
  holder: ["manifests/holder", ...launcher],
};

/** All images as the checkout says; or, where the working tree is mounted over it, with whatever code is in them. */
export type ImageSet = "all" | "dev";

const inputsIn = (target: ImageTarget, set: ImageSet): string[] =>
  set === "dev" && inputs[target] === code ? packages : inputs[target];

const SUITE = "trixie";
const baseName = (suite: string): string => `localhost/drover-lab-base:${suite}`;
const NODE = "localhost/drover-lab-node:26";

/**
 * buildah with the lab's own store, in a mount namespace of its own: whatever it mounts is gone when it ends, however it ends.
 */
const buildah = async (lab: Lab, args: string[], deadlineMs: number): Promise<string> => {
  const store = join(lab.cache, "containers");
  await mkdir(store, { recursive: true });
  const conf = join(store, "storage.conf");
  const text = `[storage]\ndriver = "overlay"\ngraphroot = "${store}/root"\nrunroot = "${store}/run"\n`;
  if (!(await exists(conf))) await writeFile(conf, text);
  return run("unshare", ["--mount", "--", "buildah", ...args], {
    deadlineMs,
    env: { CONTAINERS_STORAGE_CONF: conf, BUILDAH_ISOLATION: "chroot", REGISTRIES_CONFIG_PATH: "/dev/null" },
  });
};

/** Whether the store has an image that was made from the inputs of that key. */
const hasImage = (lab: Lab, name: string, key: string): Promise<boolean> =>
  buildah(lab, ["inspect", "--type", "image", "--format", "{{.OCIv1.Config.Labels}}", name], 30_000).then(
    (labels) => labels.includes(key),
    (error: unknown) => {
      if (error instanceof LabError) return false;
      throw error;
    },
  );

interface BaseBuild {
  name: string;
  key: string;
  containerfile: string;
  /** Fills the build's context. */
  fill: (directory: string) => Promise<void>;
  args?: string[];
}

const buildBase = async (lab: Lab, { name, key, containerfile, fill, args = [] }: BaseBuild): Promise<void> => {
  if (await hasImage(lab, name, key)) return;
  const context = join(lab.cache, `context.${process.pid}`);
  try {
    await mkdir(context, { recursive: true });
    await fill(context);
    const file = join(lab.checkout, "hack", "images", containerfile);
    await buildah(lab, ["bud", "--label", `drover.dev/key=${key}`, ...args, "-t", name, "-f", file, context], 600_000);
  } finally {
    await rm(context, { recursive: true, force: true });
  }
};

/** npm with all it needs in one directory; a distribution's own has its parts strewn over the machine. */
const NPM = "npm@11.19.1";

const fetchNpm = async (directory: string): Promise<void> => {
  const packed = await run("npm", ["pack", "--silent", "--pack-destination", directory, NPM], { cwd: "/", deadlineMs: 120_000 });
  const file = join(directory, packed.trim().split("\n").at(-1) ?? "");
  await run("tar", ["-xzf", file, "-C", directory, "--transform", "s,^package,npm,"]);
  await rm(file);
};

const HOST_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt";

/** Node.js of this checkout, and npm, on the base; with this machine's certificates and registry, since it only builds. */
const fillNode =
  (lab: Lab) =>
  async (context: string): Promise<void> => {
    await cp(join(lab.checkout, "node_modules", "node", "bin", "node"), join(context, "node"));
    await fetchNpm(context);
    await mkdir(join(context, "etc"));
    await mkdir(join(context, "certs"));
    const registry = (await run("npm", ["config", "get", "registry"], { cwd: "/" })).trim();
    const settings = [`registry=${registry}`];
    const named = (await run("npm", ["config", "get", "cafile"], { cwd: "/" })).trim();
    const certificates = (await exists(named)) ? named : HOST_CERTIFICATES;
    if (await exists(certificates)) {
      await cp(certificates, join(context, "certs", "ca-certificates.crt"), { dereference: true });
      settings.push(`cafile=${HOST_CERTIFICATES}`);
    }
    await writeFile(join(context, "etc", "npmrc"), `${settings.join("\n")}\n`);
  };

/** A Debian to build on. Gives a key that changes with it. */
const ensureBase = async (lab: Lab, suite: string, progress: Progress): Promise<string> => {
  const base = await ensureBaseTar(lab, suite, progress);
  const key = await hashOf(lab.checkout, ["hack/images/base.Containerfile"], [base.key]);
  const fill = async (context: string): Promise<void> => cp(base.path, join(context, "base.tar"));
  await buildBase(lab, { name: baseName(suite), key, containerfile: "base.Containerfile", fill });
  return key;
};

/** The images that others stand on. */
const ensureBases = (lab: Lab, progress: Progress): Promise<void> =>
  progress.step("base images for building", async () => {
    const key = await hashOf(
      lab.checkout,
      ["hack/images/node.Containerfile"],
      [await ensureBase(lab, SUITE, progress), process.version, NPM],
    );
    const args = ["--build-arg", `BASE=${baseName(SUITE)}`];
    await buildBase(lab, { name: NODE, key, containerfile: "node.Containerfile", fill: fillNode(lab), args });
  });

const buildTarget = async (lab: Lab, target: string, more: string[] = [], suite = SUITE): Promise<void> => {
  const file = join(lab.checkout, "manifests", "Containerfile");
  const args = ["--layers", "--build-arg", `BASE=${baseName(suite)}`, "--build-arg", `NODE=${NODE}`, "--target", target, ...more];
  await buildah(lab, ["bud", ...args, "-f", file, lab.checkout], 1_200_000);
};

const archiveImage = (lab: Lab, name: string, archive: string): Promise<string> =>
  madeOnce(archive, async (temporary) => {
    await buildah(lab, ["push", "--quiet", name, `docker-archive:${temporary}:${name}`], 300_000);
  });

/** Stages that more than one image comes from. */
const buildShared = async (lab: Lab): Promise<void> => {
  await buildTarget(lab, "node-runtime");
  await buildTarget(lab, "stripped");
};

const buildOne = async (lab: Lab, target: ImageTarget, archive: string): Promise<void> => {
  const name = imageName(target);
  await buildTarget(lab, target, ["-t", name]);
  await archiveImage(lab, name, archive);
};

/** Key of what every image is made by. */
const recipeKey = (lab: Lab, suite: string): Promise<string> =>
  hashOf(lab.checkout, ["manifests/Containerfile", ".dockerignore"], [suite]);

/** All of Drover's images as archives in the cache; builds only those whose inputs have changed. */
export const ensureImages = async (lab: Lab, progress: Progress, set: ImageSet): Promise<BuiltImage[]> => {
  const base = await recipeKey(lab, SUITE);
  const directory = join(lab.cache, "images");
  const wanted = await Promise.all(
    targets.map(async (target): Promise<BuiltImage> => {
      const key = await hashOf(lab.checkout, inputsIn(target, set), [
        base,
        target,
        set === "dev" && inputs[target] === code ? "dev" : "",
      ]);
      return { target, name: imageName(target), key, archive: join(directory, `${target}-${key}.tar`) };
    }),
  );
  const missing: BuiltImage[] = [];
  for (const image of wanted) if (!(await exists(image.archive))) missing.push(image);
  if (missing.length > 0) await ensureBases(lab, progress);
  // What several images share is built first; then each can be built beside the others.
  if (missing.length > 1) await progress.step("what the images share", () => buildShared(lab));
  await together(
    missing.map(async ({ target, name, archive }) => {
      if (target === "pause") return;
      await progress.step(`image ${name}`, () => buildOne(lab, target, archive));
      await keepNewest(directory, `${target}-`, 3);
    }),
  );
  return wanted;
};

const OTHER_SUITE = { base: "bookworm", qemu: "bookworm-backports" };

/** A runtime with another QEMU than the lab's own, for what replaces one by the other under a guest: that of Debian 12's backports. */
export const OTHER_RUNTIME = "localhost/drover-runtime:bookworm";

const otherRuntime = async (lab: Lab): Promise<BuiltImage> => {
  const texts = [await recipeKey(lab, OTHER_SUITE.base), OTHER_SUITE.qemu];
  const key = await hashOf(lab.checkout, inputs.runtime, texts);
  return { target: "runtime", name: OTHER_RUNTIME, key, archive: join(lab.cache, "images", `other-runtime-${key}.tar`) };
};

/** That runtime as an archive in the cache. Built for those who ask only: it takes minutes, and nothing else needs it. */
export const ensureOtherRuntime = async (lab: Lab, progress: Progress): Promise<BuiltImage> => {
  const image = await otherRuntime(lab);
  if (await exists(image.archive)) return image;
  await progress.step(`image ${image.name}`, async () => {
    await ensureBase(lab, OTHER_SUITE.base, progress);
    const args = ["--build-arg", `QEMU_SUITE=${OTHER_SUITE.qemu}`, "-t", image.name];
    await buildTarget(lab, "runtime", args, OTHER_SUITE.base);
    await archiveImage(lab, image.name, image.archive);
  });
  await keepNewest(join(lab.cache, "images"), "other-runtime-", 2);
  return image;
};
