/** Pools on real loop devices and file systems, below a directory of the test's own. Needs root. */
import { constants } from "node:fs";
import { appendFile, chmod, mkdir, mkdtemp, open, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { execa } from "execa";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { PoolSpec } from "../../crds/pool.ts";
import { silentLogger } from "../../kube/logger.ts";
import { nodePaths, type NodePaths } from "../../node-agent/node.ts";
import { Pools } from "../../node-agent/pool/index.ts";

const MIB = 1024 ** 2;
const UID = "11111111-2222-3333-4444-555555555555";

let root: string;
let paths: NodePaths;
let before: string;

const btrfs = (size?: string): PoolSpec => ({ driver: "btrfs", source: { loop: size === undefined ? {} : { size } } });
const dir = (path: string): PoolSpec => ({ driver: "dir", source: { path } });
const named = (name: string, spec: PoolSpec) => ({ metadata: { name }, spec });
const newPools = (reserve = true): Pools => new Pools({ nodeName: "test", log: silentLogger, paths, reserve });
const run = async (command: string, ...args: string[]): Promise<string> =>
  (await execa(command, args, { timeout: 60_000 })).stdout;

/** Loops and mounts of this machine that have to do with this test's directory, as the kernel tells them. */
async function inventory(): Promise<string> {
  const loops = await run("losetup", "--list", "--noheadings", "-O", "NAME,BACK-FILE");
  const mounts = await readFile("/proc/self/mountinfo", "utf8");
  const ours = (text: string): string[] => text.split("\n").filter((line) => line.includes(root));
  return [...ours(loops), ...ours(mounts)].join("\n");
}

/** Unmounts and detaches what a failed test left, so that the next one begins with nothing. */
async function sweep(): Promise<void> {
  const mounts = (await readFile("/proc/self/mountinfo", "utf8")).split("\n").map((line) => line.split(" ")[4] ?? "");
  for (const mount of mounts.filter((one) => one.startsWith(`${root}/`)).toReversed()) await run("umount", "-l", mount);
  const loops = (await run("losetup", "--list", "--noheadings", "-O", "NAME,BACK-FILE")).split("\n");
  for (const line of loops.filter((one) => one.includes(`${root}/`))) await run("losetup", "--detach", line.split(" ")[0] ?? "");
}

beforeAll(() => {
  // The test is the node: its own mount namespace plays the node's.
  process.env["DROVER_NODE_PID"] = String(process.pid);
});

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "drover-pools-"));
  paths = nodePaths(join(root, "drover"));
  before = await inventory();
});

afterEach(async () => {
  const left = await inventory();
  await sweep();
  await rm(root, { recursive: true, force: true });
  if (left !== before) throw new Error(`loops or mounts that the test left:\n${left}`);
});

afterAll(() => {
  delete process.env["DROVER_NODE_PID"];
});

const loopOf = async (name: string): Promise<string[]> =>
  (await run("losetup", "-j", paths.loop(name), "--noheadings", "-O", "NAME")).split("\n").filter((line) => line !== "");

describe("a btrfs pool on a loop", () => {
  it("is made, is found again by another agent, survives a power cut, and leaves nothing", async () => {
    const pools = newPools();
    expect(pools.get("a")).toMatchObject({ ready: false, reason: "PoolUnknown" });
    const made = await pools.ensure(named("a", btrfs("300Mi")));
    expect(made).toMatchObject({ name: "a", ready: true, sizeBytes: 300 * MIB });
    expect((await stat(paths.loop("a"))).blocks * 512, "space is reserved").toBeGreaterThanOrEqual(300 * MIB);
    expect(await run("lsattr", "-d", join(paths.pool("a"), "volumes"))).toMatch(/^\S*C/);
    const [loop] = await loopOf("a");
    const flags = await run("losetup", "--noheadings", "-O", "AUTOCLEAR", loop ?? "");
    expect(flags.trim(), "the kernel frees the loop at the last unmount").toBe("1");

    const volume = await pools.ensureVolume({
      pool: "a",
      instanceUid: UID,
      disk: "root",
      sizeBytes: 20 * MIB,
      uid: 7001,
      gid: 7001,
    });
    await writeFile(volume.path, "kept", { flag: "r+" });
    await run("sync", "-f", volume.path);

    const next = newPools();
    expect(await next.ensure(named("a", btrfs("300Mi")))).toMatchObject({ ready: true });
    expect(await loopOf("a")).toEqual([loop]);

    // What a power cut leaves: the file, the note, no mount, no loop.
    await run("umount", paths.pool("a"));
    expect(await loopOf("a")).toEqual([]);
    const after = newPools();
    expect(await after.ensure(named("a", btrfs("300Mi")))).toMatchObject({ ready: true });
    expect((await readFile(volume.path, "utf8")).slice(0, 4)).toBe("kept");

    expect(await after.remove("a")).toMatchObject({ reason: "PoolInUse" });
    await after.removeVolumes(UID);
    await after.removeVolumes(UID);
    expect(await after.remove("a")).toBe("gone");
    expect(await after.remove("a")).toBe("gone");
    expect(await readdir(paths.loops)).toEqual([]);
    expect(await readdir(paths.pools)).toEqual([]);
  });

  it("comes to the same end wherever the agent is killed, when made, grown and removed", async () => {
    const child = async (env: Record<string, string>): Promise<{ killed: boolean; stdout: string }> => {
      const script = resolve(import.meta.dirname, "support/pool-child.ts");
      const result = await execa(process.execPath, [script], {
        env: { POOL_ROOT: paths.root, POOL_NAME: "k", DROVER_NODE_PID: String(process.pid), ...env },
        reject: false,
        timeout: 60_000,
      });
      if (result.signal !== "SIGKILL" && result.exitCode !== 0) throw new Error(result.stderr);
      return { killed: result.signal === "SIGKILL", stdout: result.stdout };
    };
    const kills = { made: 0, grown: 0, removed: 0 };
    for (let step = 1; ; step += 1) {
      const made = await child({ POOL_SPEC: JSON.stringify(btrfs("256Mi")), POOL_KILL_AFTER: String(step) });
      const pools = newPools();
      expect(await pools.ensure(named("k", btrfs("256Mi"))), `killed after step ${step} of making`).toMatchObject({
        ready: true,
      });
      expect((await loopOf("k")).length).toBe(1);
      const grown = await child({ POOL_SPEC: JSON.stringify(btrfs("320Mi")), POOL_KILL_AFTER: String(step) });
      const wanted = { ready: true, sizeBytes: 320 * MIB };
      expect(await pools.ensure(named("k", btrfs("320Mi"))), `killed after step ${step} of growing`).toMatchObject(wanted);
      const removed = await child({ POOL_REMOVE: "1", POOL_KILL_AFTER: String(step) });
      expect(await newPools().remove("k"), `killed after step ${step} of removing`).toBe("gone");
      expect([...(await readdir(paths.loops)), ...(await readdir(paths.pools)), ...(await loopOf("k"))]).toEqual([]);
      if (made.killed) kills.made += 1;
      if (grown.killed) kills.grown += 1;
      if (removed.killed) kills.removed += 1;
      if (!made.killed && !grown.killed && !removed.killed) break;
    }
    expect(kills).toEqual({ made: 8, grown: 3, removed: 3 });
  });

  it("grows under a writer that fsyncs, which sees no error", async () => {
    const pools = newPools();
    await pools.ensure(named("g", btrfs("300Mi")));
    const { path } = await pools.ensureVolume({ pool: "g", instanceUid: UID, disk: "root", sizeBytes: 64 * MIB, uid: 0, gid: 0 });
    const handle = await open(path, constants.O_RDWR);
    let written = 0;
    const growing = new AbortController();
    const writer = (async () => {
      const block = Buffer.alloc(4096, 7);
      while (!growing.signal.aborted || written < 20) {
        await handle.write(block, 0, block.length, (written % 4000) * 4096);
        await handle.datasync();
        written += 1;
      }
    })();
    const during: number[] = [];
    for (const size of [400, 512, 700]) {
      const from = written;
      expect(await pools.ensure(named("g", btrfs(`${size}Mi`)))).toMatchObject({ ready: true, sizeBytes: size * MIB });
      during.push(written - from);
    }
    growing.abort();
    await writer;
    await handle.close();
    expect(Math.min(...during), "writes done while it grew").toBeGreaterThan(0);
    expect(await run("btrfs", "scrub", "start", "-B", paths.pool("g"))).toMatch(/no errors found/);
    await pools.removeVolumes(UID);
    expect(await pools.remove("g")).toBe("gone");
  });

  it("refuses to shrink with both sizes and goes on serving", async () => {
    const pools = newPools();
    await pools.ensure(named("s", btrfs("400Mi")));
    const answer = await pools.ensure(named("s", btrfs("300Mi")));
    expect(answer).toMatchObject({ ready: true, reason: "ShrinkRefused", sizeBytes: 400 * MIB });
    expect(answer.message).toContain("a pool cannot shrink (400Mi -> 300Mi)");
    expect(pools.get("s").ready).toBe(true);
    expect((await stat(paths.loop("s"))).size).toBe(400 * MIB);
    const healed = await pools.ensure(named("s", btrfs("400Mi")));
    expect(healed.reason).toBeUndefined();
    expect(await pools.remove("s")).toBe("gone");
  });

  it("refuses more than the node has, with figures, and leaves nothing", async () => {
    const pools = newPools();
    const answer = await pools.ensure(named("b", btrfs("900Ti")));
    expect(answer).toMatchObject({ ready: false, reason: "NotEnoughSpace" });
    expect(answer.message).toMatch(/\d+Gi is free .* a size of 900Ti needs 900Ti there and 1Gi left over for the node/);
    expect(await readdir(paths.loops)).toEqual([]);
    expect(await pools.remove("b")).toBe("gone");
  });

  it("never touches a file that is not its own", async () => {
    await mkdir(paths.loops, { recursive: true });
    await writeFile(paths.loop("f"), "somebody's");
    const pools = newPools();
    expect(await pools.ensure(named("f", btrfs("300Mi")))).toMatchObject({ ready: false, reason: "ForeignData" });
    expect(await pools.remove("f")).toBe("gone");
    expect(await readFile(paths.loop("f"), "utf8")).toBe("somebody's");
    await rm(paths.loop("f"));
    await run("truncate", "-s", "300M", paths.loop("f"));
    await run("mkfs.btrfs", "-q", "-L", "precious", paths.loop("f"));
    expect(await pools.ensure(named("f", btrfs("300Mi")))).toMatchObject({ ready: false, reason: "ForeignData" });
    await rm(paths.loop("f"));
    expect(await pools.ensure(named("f", btrfs("300Mi")))).toMatchObject({ ready: true });
    expect(await pools.remove("f")).toBe("gone");
  });

  it("says that it is gone when its file was deleted, and does not make an empty one in silence", async () => {
    const pools = newPools();
    await pools.ensure(named("d", btrfs("300Mi")));
    await pools.ensureVolume({ pool: "d", instanceUid: UID, disk: "root", sizeBytes: MIB, uid: 0, gid: 0 });
    await rm(paths.loop("d"));
    const mounted = await pools.ensure(named("d", btrfs("300Mi")));
    expect(mounted).toMatchObject({ ready: false, reason: "PoolGone" });
    expect(mounted.message).toContain("was deleted while the pool is mounted");
    expect(pools.get("d")).toMatchObject({ ready: false, reason: "PoolGone" });
    await run("umount", paths.pool("d"));
    expect(await pools.ensure(named("d", btrfs("300Mi")))).toMatchObject({ ready: false, reason: "PoolGone" });
    await pools.removeVolumes(UID);
    expect(await pools.remove("d")).toBe("gone");
    expect(await pools.ensure(named("d", btrfs("300Mi")))).toMatchObject({ ready: true });
    expect(await pools.remove("d")).toBe("gone");
  });

  it("sees that it was unmounted behind its back, gives no disk below the mount point, and comes back", async () => {
    const pools = newPools();
    await pools.ensure(named("u", btrfs("300Mi")));
    await run("umount", paths.pool("u"));
    const request = { pool: "u", instanceUid: UID, disk: "root", sizeBytes: MIB, uid: 0, gid: 0 };
    await expect(pools.ensureVolume(request)).rejects.toMatchObject({ reason: "PoolGone" });
    await expect(pools.removeVolumes(UID)).rejects.toMatchObject({ reason: "PoolNotReady" });
    expect(await pools.measure()).toMatchObject([{ name: "u", ready: false, reason: "PoolGone" }]);
    expect(await readdir(paths.pool("u"))).toEqual([]);
    expect(await pools.ensure(named("u", btrfs("300Mi")))).toMatchObject({ ready: true });
    expect(await pools.remove("u")).toBe("gone");
  });

  it("is not unmounted while a process has a file of it open", async () => {
    const pools = newPools();
    await pools.ensure(named("o", btrfs("300Mi")));
    const handle = await open(join(paths.pool("o"), "open"), "w");
    expect(await pools.remove("o")).toMatchObject({ reason: "PoolBusy" });
    await handle.close();
    expect(await pools.ensure(named("o", btrfs("300Mi")))).toMatchObject({ ready: true });
    expect(await pools.remove("o")).toBe("gone");
  });

  it("without reservation takes no space before it is used", async () => {
    const pools = newPools(false);
    expect(await pools.ensure(named("z", btrfs("2Gi")))).toMatchObject({ ready: true });
    expect((await stat(paths.loop("z"))).blocks * 512).toBeLessThan(300 * MIB);
    expect(await pools.remove("z")).toBe("gone");
  });

  it("says PoolFull before the file system is full, and heals when it has grown", async () => {
    const pools = newPools();
    await pools.ensure(named("p", btrfs("300Mi")));
    const { volumes } = pools.get("p") as { volumes: string };
    await run("dd", "if=/dev/zero", `of=${join(volumes, "fill")}`, "bs=1M", "count=170", "status=none", "conv=fsync");
    const request = { pool: "p", instanceUid: UID, disk: "root", sizeBytes: MIB, uid: 0, gid: 0 };
    await expect(pools.ensureVolume(request)).rejects.toMatchObject({ reason: "PoolFull" });
    const [full] = await pools.measure();
    expect(full).toMatchObject({ ready: false, reason: "PoolFull" });
    expect(full?.message).toMatch(/pool p is full: \d+Mi of 300Mi is free, and 64Mi is needed; delete instances, or let it grow/);
    expect(pools.get("p").ready, "its disks can still be used").toBe(true);
    expect(await pools.ensure(named("p", btrfs("600Mi")))).toMatchObject({ ready: true });
    await pools.ensureVolume(request);
    await pools.removeVolumes(UID);
    await rm(join(volumes, "fill"));
    expect(await pools.remove("p")).toBe("gone");
  });
});

describe("disks", () => {
  it("are clones of an image that share its blocks, grown to their size and given to the guest; a repeat changes nothing", async () => {
    const pools = newPools();
    await pools.ensure(named("v", btrfs("400Mi")));
    const { images } = pools.get("v") as { images: string };
    const imagePath = join(images, "i.raw");
    await run("dd", "if=/dev/urandom", `of=${imagePath}`, "bs=1M", "count=60", "status=none", "conv=fsync");
    const used = (await pools.measure())[0]?.usedBytes ?? 0;
    const request = {
      pool: "v",
      instanceUid: UID,
      disk: "root",
      sizeBytes: 100 * MIB,
      from: { imagePath, virtualSize: 60 * MIB },
      uid: 7001,
      gid: 7002,
    };
    const volume = await pools.ensureVolume(request);
    expect(volume).toEqual({ path: join(paths.volumes("v", UID), "root.raw"), sizeBytes: 100 * MIB });
    expect(await stat(volume.path)).toMatchObject({ uid: 7001, gid: 7002, size: 100 * MIB });
    expect(((await stat(volume.path)).mode & 0o777).toString(8)).toBe("600");
    expect(await run("lsattr", volume.path)).toMatch(/^\S*C/);
    expect(((await pools.measure())[0]?.usedBytes ?? 0) - used, "blocks are shared").toBeLessThan(4 * MIB);
    expect(await run("cmp", "-n", String(60 * MIB), imagePath, volume.path)).toBe("");

    await writeFile(volume.path, "guest", { flag: "r+" });
    await chmod(volume.path, 0o644);
    await pools.ensureVolume(request);
    expect((await readFile(volume.path)).subarray(0, 5).toString()).toBe("guest");
    expect(((await stat(volume.path)).mode & 0o777).toString(8)).toBe("600");
    await rm(imagePath);
    expect((await readFile(volume.path)).length).toBe(100 * MIB);
    await pools.removeVolumes(UID);
    expect(await pools.remove("v")).toBe("gone");
  });

  it("smaller than their image are refused with both sizes, and nothing is left of them", async () => {
    const pools = newPools();
    await pools.ensure(named("w", btrfs("300Mi")));
    const { images, volumes } = pools.get("w") as { images: string; volumes: string };
    const imagePath = join(images, "i.raw");
    await run("truncate", "-s", "64M", imagePath);
    const request = { pool: "w", instanceUid: UID, disk: "root", sizeBytes: 32 * MIB, uid: 1, gid: 1 };
    const making = pools.ensureVolume({ ...request, from: { imagePath, virtualSize: 64 * MIB } });
    await expect(making).rejects.toMatchObject({ reason: "ImageTooLarge" });
    await expect(making).rejects.toThrow("a disk of 64Mi and does not fit in the root disk of 32Mi");
    expect(await readdir(volumes)).toEqual([]);
    await expect(pools.ensureVolume({ ...request, instanceUid: "../x" })).rejects.toThrow("part of a path");
    expect(await pools.remove("w")).toBe("gone");
  });
});

describe("a dir pool", () => {
  it("lives in an existing directory, found again, and gives it back empty", async () => {
    const srv = join(root, "srv");
    const link = join(root, "link");
    await mkdir(srv);
    await writeFile(join(srv, "mine"), "stays");
    await symlink(srv, link);
    const pools = newPools();
    expect(await pools.ensure(named("p", dir(link)))).toMatchObject({ ready: true });
    const { images } = pools.get("p") as { images: string };
    const imagePath = join(images, "i.raw");
    await run("truncate", "-s", "64M", imagePath);
    await appendFile(imagePath, "end".padEnd(4096));
    const from = { imagePath, virtualSize: 64 * MIB + 4096 };
    const volume = await pools.ensureVolume({
      pool: "p",
      instanceUid: UID,
      disk: "root",
      sizeBytes: 128 * MIB,
      from,
      uid: 5,
      gid: 5,
    });
    expect((await stat(volume.path)).blocks * 512, "copied sparsely").toBeLessThan(MIB);
    expect(await readdir(join(srv, "volumes", UID))).toEqual(["root.raw"]);

    await run("umount", paths.pool("p"));
    const next = newPools();
    expect(await next.ensure(named("p", dir(link)))).toMatchObject({ ready: true });
    expect(await next.ensure(named("q", dir(srv)))).toMatchObject({ ready: false, reason: "PathInUse" });
    expect(await next.remove("q")).toBe("gone");
    expect(await next.remove("p")).toMatchObject({ reason: "PoolInUse" });
    await next.removeVolumes(UID);
    expect(await next.remove("p")).toBe("gone");
    expect(await readdir(srv)).toEqual(["mine"]);
    expect(await readdir(paths.pools)).toEqual([]);
  });

  it("refuses what is missing, no directory, or the system's; and heals", async () => {
    const pools = newPools();
    const srv = join(root, "srv");
    const missing = await pools.ensure(named("p", dir(srv)));
    expect(missing).toMatchObject({
      ready: false,
      reason: "DirectoryMissing",
      message: `${srv} does not exist on node test; make the directory, or mount its disk`,
    });
    await writeFile(srv, "");
    expect(await pools.ensure(named("p", dir(srv)))).toMatchObject({ reason: "NotADirectory" });
    await rm(srv);
    await symlink("/etc", srv);
    expect(await pools.ensure(named("p", dir(srv)))).toMatchObject({ reason: "PathRefused" });
    for (const path of ["/", "/proc/self", "/sys", "/dev", "/boot", paths.root]) {
      expect(await pools.ensure(named("p", dir(path)))).toMatchObject({ ready: false, reason: "PathRefused" });
    }
    await rm(srv);
    await mkdir(srv);
    expect(await pools.ensure(named("p", dir(srv)))).toMatchObject({ ready: true });
    expect(await pools.remove("p")).toBe("gone");
  });

  it("whose disk is not mounted is gone, and not begun anew below the mount point", async () => {
    const srv = join(root, "srv");
    await mkdir(srv);
    await run("mount", "-t", "tmpfs", "-o", "size=200m", "drover-test", srv);
    const pools = newPools();
    expect(await pools.ensure(named("p", dir(srv)))).toMatchObject({ ready: true });
    await run("umount", paths.pool("p"));
    await run("mount", "--move", srv, await mkdtemp(join(root, "away-")));
    const gone = await pools.ensure(named("p", dir(srv)));
    expect(gone).toMatchObject({ ready: false, reason: "PoolGone" });
    expect(await readdir(srv)).toEqual([]);
    const away = (await readdir(root)).find((name) => name.startsWith("away-")) ?? "";
    await run("mount", "--move", join(root, away), srv);
    expect(await pools.ensure(named("p", dir(srv)))).toMatchObject({ ready: true });
    expect(await pools.remove("p")).toBe("gone");
    await run("umount", srv);
  });
});
