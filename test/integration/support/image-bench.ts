/** A pool, an agent's images and a server that misbehaves, for tests of images. */
import { randomBytes } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterAll, afterEach, beforeAll, beforeEach } from "vitest";
import { silentLogger } from "../../../kube/logger.ts";
import { Images, type ImageRequest, type ImagesOptions } from "../../../node-agent/image/index.ts";
import { nodePaths, type NodePaths } from "../../../node-agent/node.ts";
import { Pools } from "../../../node-agent/pool/index.ts";
import { ImageServer, sha256 } from "./image-server.ts";

export const MIB = 1024 ** 2;
export const POOL = "p";
const LIMITS = { stallMs: 400, stallBytes: 1024, retryMs: 5, retryCapMs: 20, tries: 3 };

export const never = new AbortController().signal;

export const run = async (command: string, ...args: string[]): Promise<string> =>
  (await execa(command, args, { timeout: 60_000 })).stdout;

export const ask = (url: string, data: Buffer, pool = POOL): ImageRequest => ({ url, checksum: sha256(data), pool });

/** A disk with a boot sector, something at both ends, and nothing in between. */
export function bootable(size: number): Buffer {
  const data = Buffer.alloc(size);
  randomBytes(2 * MIB).copy(data);
  data.writeUInt16BE(0x55aa, 510);
  randomBytes(MIB).copy(data, size - MIB);
  return data;
}

export class ImageBench {
  readonly root: string;
  readonly paths: NodePaths;
  readonly pools: Pools;
  readonly disk = bootable(24 * MIB);
  qcow2 = Buffer.alloc(0);
  server = new ImageServer();

  constructor(root: string) {
    this.root = root;
    this.paths = nodePaths(join(root, "drover"));
    this.pools = new Pools({ nodeName: "test", log: silentLogger, paths: this.paths });
  }

  /** A new agent: it knows what is on the node and nothing else. */
  agent(more: Partial<ImagesOptions> = {}): Images {
    const { test } = more;
    const forTests = { allowLoopback: true, answerMs: 2000, abandonedMs: 50, ...test, limits: { ...LIMITS, ...test?.limits } };
    return new Images({ pools: this.pools, log: silentLogger, paths: this.paths, ...more, test: forTests });
  }

  async prepare(): Promise<void> {
    await writeFile(join(this.root, "disk.raw"), this.disk);
    await run(
      "qemu-img",
      "convert",
      "-c",
      "-f",
      "raw",
      "-O",
      "qcow2",
      join(this.root, "disk.raw"),
      join(this.root, "disk.qcow2"),
    );
    this.qcow2 = await readFile(join(this.root, "disk.qcow2"));
    await writeFile(join(this.root, "secret"), "the node's secret");
    const made = await this.pools.ensure({
      metadata: { name: POOL },
      spec: { driver: "btrfs", source: { loop: { size: "512Mi" } } },
    });
    if (!made.ready) throw new Error(made.message);
  }

  async takeDown(): Promise<void> {
    const removed = await this.pools.remove(POOL);
    const loops = await run("losetup", "-j", this.paths.loop(POOL));
    if (removed !== "gone" || loops !== "") throw new Error(`the pool was left: ${JSON.stringify(removed)} ${loops}`);
    await rm(this.root, { recursive: true, force: true });
  }

  images(): Promise<string[]> {
    return readdir(join(this.paths.pool(POOL), "images"));
  }

  downloads(): Promise<string[]> {
    return readdir(this.paths.images).catch(() => []);
  }

  /** All that there is of images on the node. */
  async left(): Promise<string[]> {
    return [...(await this.images()), ...(await this.downloads())];
  }

  async forgetImages(): Promise<void> {
    for (const name of await this.images()) await rm(join(this.paths.pool(POOL), "images", name));
    await rm(this.paths.images, { recursive: true, force: true });
  }
}

/** Makes a bench for the tests of a file, and takes it down after them; each test has a server of its own. */
export function useImageBench(): () => ImageBench {
  let bench: ImageBench | undefined;
  const get = (): ImageBench => {
    if (!bench) throw new Error("there is no bench outside of tests");
    return bench;
  };
  beforeAll(async () => {
    // The test is the node: its own mount namespace plays the node's.
    process.env["DROVER_NODE_PID"] = String(process.pid);
    bench = new ImageBench(await mkdtemp(join(tmpdir(), "drover-images-")));
    await bench.prepare();
  });
  afterAll(async () => {
    await bench?.takeDown();
    delete process.env["DROVER_NODE_PID"];
  });
  beforeEach(async () => {
    get().server = new ImageServer();
    await get().server.start();
  });
  afterEach(async () => {
    await get().server.stop();
    await get().forgetImages();
  });
  return get;
}
