/** Pools in a directory that nodes share: two agents on one directory, as two nodes have it. Needs root. */
import { mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { nodePaths } from "../../node-agent/node.ts";
import { silentLogger } from "../../kube/index.ts";
import { Pools } from "../../node-agent/pool/index.ts";
import { MIB, named, UID, usePoolBench } from "./support/pool-bench.ts";

const bench = usePoolBench();
const GIB = 1024 ** 3;

const shared = (path: string, directory?: string) => ({
  ...named("common", { driver: "dir" as const, shared: true, source: { path } }),
  ...(directory === undefined ? {} : { status: { directory } }),
});
const pathsOf = (node: string) => nodePaths(join(bench().root, node));
const agentOf = (node: string) => new Pools({ nodeName: node, log: silentLogger, paths: pathsOf(node) });
const volume = { pool: "common", instanceUid: UID, disk: "root", sizeBytes: 8 * MIB };

it("have one mark, whoever comes first; the disks of one node are those of the other", async () => {
  const srv = join(bench().root, "srv");
  await mkdir(srv);
  await writeFile(join(srv, "mine"), "stays");
  const [one, two] = [agentOf("n1"), agentOf("n2")];
  const [a, b] = await Promise.all([one.ensure(shared(srv)), two.ensure(shared(srv))]);
  expect([a, b]).toMatchObject([{ ready: true }, { ready: true }]);
  expect(a.directory).toBeTypeOf("string");
  expect(b.directory).toBe(a.directory);
  expect((await readdir(srv)).toSorted()).toEqual([".drover-nodes", ".drover-pool", "images", "mine", "volumes"]);

  const made = await one.ensureVolume({ ...volume, uid: 7001, gid: 7001 });
  await writeFile(made.path, "guest", { flag: "r+" });
  const there = await two.ensureVolume({ ...volume, uid: 7002, gid: 7003, mustExist: true });
  expect((await readFile(there.path)).subarray(0, 5).toString()).toBe("guest");
  expect(await stat(there.path)).toMatchObject({ uid: 7002, gid: 7003 });
  await expect(two.ensureVolume({ ...volume, disk: "data", uid: 1, gid: 1, mustExist: true })).rejects.toMatchObject({
    reason: "SharedDiskMissing",
  });
  await Promise.all([one.measure(), two.measure()]);
  for (const pools of [one, two]) expect([...(pools.sharedVolumes("common") ?? [])]).toEqual([[UID, GIB]]);
  const scratch = [one, two].map((pools) => (pools.get("common") as { scratch: string }).scratch);
  expect(new Set([...scratch, ""]).size).toBe(3);

  // A node that no longer has the pool leaves the others' disks alone, but not while one of its own instances is in it.
  await mkdir(pathsOf("n2").instance(UID), { recursive: true });
  expect(await two.remove("common")).toMatchObject({ reason: "PoolInUse" });
  await rm(pathsOf("n2").instance(UID), { recursive: true });
  expect(await two.remove("common")).toBe("gone");
  expect(await two.remove("common")).toBe("gone");
  expect((await readFile(made.path)).subarray(0, 5).toString()).toBe("guest");
  expect(await one.remove("common")).toMatchObject({ reason: "PoolInUse" });
  await one.removeVolumes(UID);
  expect(await one.remove("common")).toBe("gone");
  expect(await readdir(srv)).toEqual(["mine"]);
});

it("are refused on a node where another directory is in their place", async () => {
  const [srv, below] = [join(bench().root, "srv"), join(bench().root, "below")];
  await mkdir(srv);
  await mkdir(below);
  const [one, two] = [agentOf("n1"), agentOf("n2")];
  const { directory } = await one.ensure(shared(srv));
  expect(await two.ensure(shared(below, directory))).toMatchObject({ ready: false, reason: "PoolNotShared" });
  expect(await readdir(below)).toEqual([]);
  // One that was made before anybody knew is refused later.
  expect(await two.ensure(shared(below))).toMatchObject({ ready: true });
  expect(await two.ensure(shared(below, directory))).toMatchObject({ ready: false, reason: "PoolNotShared" });
  expect(two.get("common")).toMatchObject({ ready: false, reason: "PoolNotShared" });
  expect(await two.remove("common")).toBe("gone");
  expect(await one.remove("common")).toBe("gone");
});

it("a node that lost power finds its pool again", async () => {
  const srv = join(bench().root, "srv");
  await mkdir(srv);
  const one = agentOf("n1");
  const { directory } = await one.ensure(shared(srv));
  await one.ensureVolume({ ...volume, uid: 1, gid: 1 });
  const next = agentOf("n1");
  expect(await next.ensure(shared(srv, directory))).toMatchObject({ ready: true, directory });
  await next.removeVolumes(UID);
  expect(await next.remove("common")).toBe("gone");
  expect(await readdir(srv)).toEqual([]);
});
