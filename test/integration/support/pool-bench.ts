/** A directory that plays a node's, for tests of pools; what they leave in the kernel fails them. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterAll, afterEach, beforeAll, beforeEach } from "vitest";
import type { PoolSpec } from "../../../crds/pool.ts";
import { silentLogger } from "../../../kube/index.ts";
import { nodePaths, type NodePaths } from "../../../node-agent/node.ts";
import { Pools } from "../../../node-agent/pool/index.ts";

export const MIB = 1024 ** 2;
/** An instance. */
export const UID = "11111111-2222-3333-4444-555555555555";

export const btrfs = (size?: string): PoolSpec => ({ driver: "btrfs", source: { loop: size === undefined ? {} : { size } } });
export const dir = (path: string): PoolSpec => ({ driver: "dir", source: { path } });
export const named = (name: string, spec: PoolSpec) => ({ metadata: { name }, spec });

export const run = async (command: string, ...args: string[]): Promise<string> =>
  (await execa(command, args, { timeout: 60_000 })).stdout;

export class PoolBench {
  readonly root: string;
  readonly paths: NodePaths;

  constructor(root: string) {
    this.root = root;
    this.paths = nodePaths(join(root, "drover"));
  }

  /** A new agent's: it knows what is on the node and nothing else. */
  pools(reserve = true): Pools {
    return new Pools({ nodeName: "test", log: silentLogger, paths: this.paths, reserve });
  }

  async loopsOf(pool: string): Promise<string[]> {
    const text = await run("losetup", "-j", this.paths.loop(pool), "--noheadings", "-O", "NAME");
    return text.split("\n").filter((line) => line !== "");
  }

  /** Loops and mounts of this machine that have to do with the bench, as the kernel tells them. */
  async inventory(): Promise<string> {
    const loops = await run("losetup", "--list", "--noheadings", "-O", "NAME,BACK-FILE");
    const mounts = await readFile("/proc/self/mountinfo", "utf8");
    return [loops, mounts]
      .flatMap((text) => text.split("\n"))
      .filter((line) => line.includes(this.root))
      .join("\n");
  }

  /** Unmounts and detaches what a failed test left, so that the next one begins with nothing. */
  async sweep(): Promise<void> {
    const mounts = (await readFile("/proc/self/mountinfo", "utf8")).split("\n").map((line) => line.split(" ")[4] ?? "");
    for (const mount of mounts.filter((one) => one.startsWith(`${this.root}/`)).toReversed()) await run("umount", "-l", mount);
    const loops = (await run("losetup", "--list", "--noheadings", "-O", "NAME,BACK-FILE")).split("\n");
    for (const line of loops.filter((one) => one.includes(`${this.root}/`)))
      await run("losetup", "--detach", line.split(" ")[0] ?? "");
    await rm(this.root, { recursive: true, force: true });
  }
}

/** A new bench for each test of a file. */
export function usePoolBench(): () => PoolBench {
  let bench: PoolBench | undefined;
  const get = (): PoolBench => {
    if (!bench) throw new Error("there is no bench outside of tests");
    return bench;
  };
  beforeAll(() => {
    // The test is the node: its own mount namespace plays the node's.
    process.env["DROVER_NODE_PID"] = String(process.pid);
  });
  afterAll(() => {
    delete process.env["DROVER_NODE_PID"];
  });
  beforeEach(async () => {
    bench = new PoolBench(await mkdtemp(join(tmpdir(), "drover-pools-")));
  });
  afterEach(async () => {
    const left = await get().inventory();
    await get().sweep();
    if (left !== "") throw new Error(`loops or mounts that the test left:\n${left}`);
  });
  return get;
}
