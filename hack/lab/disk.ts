/**
 * Where the nodes' containerds keep images: one btrfs disk image per lab, one subvolume per node, each a snapshot of a template
 * into which the images were imported once. The template lies in the cache by what it holds.
 */
import { readFile, rename, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { createHash } from "node:crypto";
import { mkdir, readdir, stat } from "node:fs/promises";
import { exists, keepNewest, madeOnce, writeWhole } from "./files.ts";
import type { Lab, LabNode } from "./identity.ts";
import type { BuiltImage } from "./images.ts";
import { nodeSocket } from "./node/node.ts";
import type { Progress } from "./progress.ts";
import { LabError, run } from "./run.ts";

const SIZE_BYTES = 24 * 1024 ** 3;

/** Name -> key of the images that a template or a node holds. */
const heldSchema = z.record(z.string(), z.string());
type Held = z.infer<typeof heldSchema>;

const readHeld = async (file: string): Promise<Held> =>
  heldSchema.parse(JSON.parse(await readFile(file, "utf8").catch(() => "{}")));

const asHeld = (images: BuiltImage[]): Held => Object.fromEntries(images.map((image) => [image.name, image.key]));

/** Images of which something else, or nothing, is held. Pure. */
export const notHeld = (images: BuiltImage[], held: Held): BuiltImage[] =>
  images.filter((image) => held[image.name] !== image.key);

const templateScript = join(import.meta.dirname, "scripts", "template.sh");

const newest = async (directory: string): Promise<string | undefined> => {
  const names = (await readdir(directory).catch(() => [])).filter((name) => /^template-[0-9a-f]+\.img$/.test(name));
  const dated = await Promise.all(names.map(async (name) => ({ name, used: (await stat(join(directory, name))).mtimeMs })));
  const name = dated.sort((a, b) => b.used - a.used)[0]?.name;
  return name === undefined ? undefined : join(directory, name);
};

const copySparse = (from: string, to: string): Promise<string> =>
  run("cp", ["--reflink=auto", "--sparse=always", from, to], { deadlineMs: 120_000 });

/** The template with exactly these images, in the cache; grown from the newest one there is, so that only what differs is imported. */
const ensureTemplate = async (lab: Lab, images: BuiltImage[], progress: Progress): Promise<string> => {
  const directory = join(lab.cache, "containerd");
  const key = createHash("sha256")
    .update(
      images
        .map((image) => `${image.name}=${image.key}`)
        .sort()
        .join("\n"),
    )
    .digest("hex")
    .slice(0, 16);
  const path = join(directory, `template-${key}.img`);
  const heldFile = (template: string): string => template.replace(/\.img$/, ".json");
  if (await exists(path)) return madeOnce(path, async () => undefined);
  await progress.step(`images into a template for the nodes`, async () => {
    await mkdir(directory, { recursive: true });
    const before = await newest(directory);
    const held = before === undefined ? {} : await readHeld(heldFile(before));
    await madeOnce(path, async (temporary) => {
      if (before === undefined) {
        await writeFile(temporary, "");
        await truncate(temporary, SIZE_BYTES);
        await run("mkfs.btrfs", ["-q", temporary], { deadlineMs: 60_000 });
      } else {
        await copySparse(before, temporary);
      }
      const archives = notHeld(images, held).map((image) => image.archive);
      const own = ["--mount", "--pid", "--fork", "--kill-child"];
      await run("unshare", [...own, "--", templateScript, temporary, ...archives], { deadlineMs: 600_000 });
      await writeWhole(heldFile(path), JSON.stringify(asHeld(images)));
    });
    await keepNewest(directory, "template-", 4);
  });
  return path;
};

const diskFile = (lab: Lab): string => join(lab.state, "containerd.img");
const mountPoint = (lab: Lab): string => join(lab.state, "containerd");
const nodeHeld = (node: LabNode): string => join(node.state, "images.json");

/** Directory that becomes a node's /var/lib/containerd. */
export const containerdRoot = (lab: Lab, node: LabNode): string => join(mountPoint(lab), node.name);

const isMounted = async (path: string): Promise<boolean> =>
  (await readFile("/proc/self/mountinfo", "utf8")).split("\n").some((line) => line.split(" ")[4] === path);

/** The disk mounted, with a subvolume for each node. May be repeated; nodes that have one keep it. */
export const ensureDisk = async (lab: Lab, images: BuiltImage[], progress: Progress): Promise<void> => {
  if (!(await exists(diskFile(lab)))) {
    const template = await ensureTemplate(lab, images, progress);
    const fresh = `${diskFile(lab)}.new`;
    await mkdir(lab.state, { recursive: true });
    await rm(fresh, { force: true });
    await copySparse(template, fresh);
    await rename(fresh, diskFile(lab));
  }
  if (!(await isMounted(mountPoint(lab)))) {
    await mkdir(mountPoint(lab), { recursive: true });
    // mount's own loop device is freed by the umount, whoever does it.
    await run("mount", ["-o", "loop,noatime", diskFile(lab), mountPoint(lab)]).catch((error: unknown) => {
      throw new LabError("the nodes' disk cannot be mounted: the lab needs loop devices and btrfs in this machine's kernel", {
        cause: error,
      });
    });
  }
  const held = asHeld(images);
  for (const node of lab.nodes) {
    const root = containerdRoot(lab, node);
    if (await exists(root)) continue;
    await run("btrfs", ["subvolume", "snapshot", join(mountPoint(lab), "template"), root]);
    await writeWhole(nodeHeld(node), JSON.stringify(held));
  }
};

/** Brings running nodes' images up to date; gives the images that changed on any node. */
export const refreshImages = async (nodes: LabNode[], images: BuiltImage[]): Promise<BuiltImage[]> => {
  const changed = new Set<BuiltImage>();
  await Promise.all(
    nodes.map(async (node) => {
      const held = await readHeld(nodeHeld(node));
      for (const image of notHeld(images, held)) {
        const socket = await nodeSocket(node);
        await run("ctr", ["--address", socket, "-n", "k8s.io", "images", "import", image.archive], { deadlineMs: 300_000 });
        held[image.name] = image.key;
        await writeWhole(nodeHeld(node), JSON.stringify(held));
        changed.add(image);
      }
    }),
  );
  return [...changed];
};
