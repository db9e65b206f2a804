/** Pools on real loop devices and btrfs, below a directory of the test's own. Needs root. */
import { constants } from "node:fs";
import { mkdir, open, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { execa } from "execa";
import { describe, expect, it } from "vitest";
import { realClock, silentLogger } from "../../kube/index.ts";
import { watchPools } from "../../node-agent/pool/index.ts";
import { btrfs, MIB, named, run, UID, usePoolBench } from "./support/pool-bench.ts";

const bench = usePoolBench();

describe("a btrfs pool on a loop", () => {
  it("is made, is found again by another agent, survives a power cut, and leaves nothing", async () => {
    const pools = bench().pools();
    expect(pools.get("a")).toMatchObject({ ready: false, reason: "PoolUnknown" });
    const made = await pools.ensure(named("a", btrfs("300Mi")));
    expect(made).toMatchObject({ name: "a", ready: true, sizeBytes: 300 * MIB });
    expect((await stat(bench().paths.loop("a"))).blocks * 512, "space is reserved").toBeGreaterThanOrEqual(300 * MIB);
    expect(await run("lsattr", "-d", join(bench().paths.pool("a"), "volumes"))).toMatch(/^\S*C/);
    const [loop] = await bench().loopsOf("a");
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

    const next = bench().pools();
    expect(await next.ensure(named("a", btrfs("300Mi")))).toMatchObject({ ready: true });
    expect(await bench().loopsOf("a")).toEqual([loop]);

    // What a power cut leaves: the file, the note, no mount, no loop.
    await run("umount", bench().paths.pool("a"));
    expect(await bench().loopsOf("a")).toEqual([]);
    const after = bench().pools();
    expect(await after.ensure(named("a", btrfs("300Mi")))).toMatchObject({ ready: true });
    expect((await readFile(volume.path, "utf8")).slice(0, 4)).toBe("kept");

    expect(await after.remove("a")).toMatchObject({ reason: "PoolInUse" });
    await after.removeVolumes(UID);
    await after.removeVolumes(UID);
    expect(await after.remove("a")).toBe("gone");
    expect(await after.remove("a")).toBe("gone");
    expect(await readdir(bench().paths.loops)).toEqual([]);
    expect(await readdir(bench().paths.pools)).toEqual([]);
  });

  it("comes to the same end wherever the agent is killed, when made, grown and removed", async () => {
    const child = async (env: Record<string, string>): Promise<{ killed: boolean; stdout: string }> => {
      const script = resolve(import.meta.dirname, "support/pool-child.ts");
      const result = await execa(process.execPath, [script], {
        env: { POOL_ROOT: bench().paths.root, POOL_NAME: "k", DROVER_NODE_PID: String(process.pid), ...env },
        reject: false,
        timeout: 60_000,
      });
      if (result.signal !== "SIGKILL" && result.exitCode !== 0) throw new Error(result.stderr);
      return { killed: result.signal === "SIGKILL", stdout: result.stdout };
    };
    const kills = { made: 0, grown: 0, removed: 0 };
    for (let step = 1; ; step += 1) {
      const made = await child({ POOL_SPEC: JSON.stringify(btrfs("256Mi")), POOL_KILL_AFTER: String(step) });
      const pools = bench().pools();
      expect(await pools.ensure(named("k", btrfs("256Mi"))), `killed after step ${step} of making`).toMatchObject({
        ready: true,
      });
      expect((await bench().loopsOf("k")).length).toBe(1);
      const grown = await child({ POOL_SPEC: JSON.stringify(btrfs("320Mi")), POOL_KILL_AFTER: String(step) });
      const wanted = { ready: true, sizeBytes: 320 * MIB };
      expect(await pools.ensure(named("k", btrfs("320Mi"))), `killed after step ${step} of growing`).toMatchObject(wanted);
      const removed = await child({ POOL_REMOVE: "1", POOL_KILL_AFTER: String(step) });
      expect(await bench().pools().remove("k"), `killed after step ${step} of removing`).toBe("gone");
      expect([
        ...(await readdir(bench().paths.loops)),
        ...(await readdir(bench().paths.pools)),
        ...(await bench().loopsOf("k")),
      ]).toEqual([]);
      if (made.killed) kills.made += 1;
      if (grown.killed) kills.grown += 1;
      if (removed.killed) kills.removed += 1;
      if (!made.killed && !grown.killed && !removed.killed) break;
    }
    expect(kills).toEqual({ made: 8, grown: 3, removed: 3 });
  });

  it("grows under a writer that fsyncs, which sees no error", async () => {
    const pools = bench().pools();
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
    expect(await run("btrfs", "scrub", "start", "-B", bench().paths.pool("g"))).toMatch(/no errors found/);
    await pools.removeVolumes(UID);
    expect(await pools.remove("g")).toBe("gone");
  });

  it("refuses to shrink with both sizes and goes on serving", async () => {
    const pools = bench().pools();
    await pools.ensure(named("s", btrfs("400Mi")));
    const answer = await pools.ensure(named("s", btrfs("300Mi")));
    expect(answer).toMatchObject({ ready: true, reason: "ShrinkRefused", sizeBytes: 400 * MIB });
    expect(answer.message).toContain("a pool cannot shrink (400Mi -> 300Mi)");
    expect(pools.get("s").ready).toBe(true);
    expect((await stat(bench().paths.loop("s"))).size).toBe(400 * MIB);
    const healed = await pools.ensure(named("s", btrfs("400Mi")));
    expect(healed.reason).toBeUndefined();
    expect(await pools.remove("s")).toBe("gone");
  });

  it("refuses more than the node has, with figures, and leaves nothing", async () => {
    const pools = bench().pools();
    const answer = await pools.ensure(named("b", btrfs("900Ti")));
    expect(answer).toMatchObject({ ready: false, reason: "NotEnoughSpace" });
    expect(answer.message).toMatch(/\d+Gi is free .* a size of 900Ti needs 900Ti there and 1Gi left over for the node/);
    expect(await readdir(bench().paths.loops)).toEqual([]);
    expect(await pools.remove("b")).toBe("gone");
  });

  it("never touches a file that is not its own", async () => {
    await mkdir(bench().paths.loops, { recursive: true });
    await writeFile(bench().paths.loop("f"), "somebody's");
    const pools = bench().pools();
    expect(await pools.ensure(named("f", btrfs("300Mi")))).toMatchObject({ ready: false, reason: "ForeignData" });
    expect(await pools.remove("f")).toBe("gone");
    expect(await readFile(bench().paths.loop("f"), "utf8")).toBe("somebody's");
    await rm(bench().paths.loop("f"));
    await run("truncate", "-s", "300M", bench().paths.loop("f"));
    await run("mkfs.btrfs", "-q", "-L", "precious", bench().paths.loop("f"));
    expect(await pools.ensure(named("f", btrfs("300Mi")))).toMatchObject({ ready: false, reason: "ForeignData" });
    await rm(bench().paths.loop("f"));
    expect(await pools.ensure(named("f", btrfs("300Mi")))).toMatchObject({ ready: true });
    expect(await pools.remove("f")).toBe("gone");
  });

  it("says that it is gone when its file was deleted, and does not make an empty one in silence", async () => {
    const pools = bench().pools();
    await pools.ensure(named("d", btrfs("300Mi")));
    await pools.ensureVolume({ pool: "d", instanceUid: UID, disk: "root", sizeBytes: MIB, uid: 0, gid: 0 });
    await rm(bench().paths.loop("d"));
    const mounted = await pools.ensure(named("d", btrfs("300Mi")));
    expect(mounted).toMatchObject({ ready: false, reason: "PoolGone" });
    expect(mounted.message).toContain("was deleted while the pool is mounted");
    expect(pools.get("d")).toMatchObject({ ready: false, reason: "PoolGone" });
    await run("umount", bench().paths.pool("d"));
    expect(await pools.ensure(named("d", btrfs("300Mi")))).toMatchObject({ ready: false, reason: "PoolGone" });
    await pools.removeVolumes(UID);
    expect(await pools.remove("d")).toBe("gone");
    expect(await pools.ensure(named("d", btrfs("300Mi")))).toMatchObject({ ready: true });
    expect(await pools.remove("d")).toBe("gone");
  });

  it("sees that it was unmounted behind its back, gives no disk below the mount point, and comes back", async () => {
    const pools = bench().pools();
    await pools.ensure(named("u", btrfs("300Mi")));
    await run("umount", bench().paths.pool("u"));
    const request = { pool: "u", instanceUid: UID, disk: "root", sizeBytes: MIB, uid: 0, gid: 0 };
    await expect(pools.ensureVolume(request)).rejects.toMatchObject({ reason: "PoolGone" });
    await expect(pools.removeVolumes(UID)).rejects.toMatchObject({ reason: "PoolNotReady" });
    expect(await pools.measure()).toMatchObject([{ name: "u", ready: false, reason: "PoolGone" }]);
    expect(await readdir(bench().paths.pool("u"))).toEqual([]);
    expect(await pools.ensure(named("u", btrfs("300Mi")))).toMatchObject({ ready: true });
    expect(await pools.remove("u")).toBe("gone");
  });

  it("is told of when it is unmounted or its file deleted by somebody else", async () => {
    const pools = bench().pools();
    await pools.ensure(named("t", btrfs("300Mi")));
    const stop = new AbortController();
    const told = new Set<string>();
    const watching = watchPools(
      { paths: bench().paths, clock: realClock, log: silentLogger, onChange: (pool) => told.add(pool) },
      stop.signal,
    );
    const file = bench().paths.loop("elsewhere");
    const meddle = async (): Promise<boolean> => {
      await run("umount", bench().paths.pool("t"));
      await pools.ensure(named("t", btrfs("300Mi")));
      await writeFile(file, "");
      await rm(file);
      return told.has("t") && told.has("elsewhere");
    };
    // findmnt needs a moment before it watches.
    await expect.poll(meddle, { timeout: 20_000 }).toBe(true);
    stop.abort();
    await watching;
    expect(await pools.remove("t")).toBe("gone");
  });

  it("is not unmounted while a process has a file of it open", async () => {
    const pools = bench().pools();
    await pools.ensure(named("o", btrfs("300Mi")));
    const handle = await open(join(bench().paths.pool("o"), "open"), "w");
    expect(await pools.remove("o")).toMatchObject({ reason: "PoolBusy" });
    await handle.close();
    expect(await pools.ensure(named("o", btrfs("300Mi")))).toMatchObject({ ready: true });
    expect(await pools.remove("o")).toBe("gone");
  });

  it("without reservation takes no space before it is used", async () => {
    const pools = bench().pools(false);
    expect(await pools.ensure(named("z", btrfs("2Gi")))).toMatchObject({ ready: true });
    expect((await stat(bench().paths.loop("z"))).blocks * 512).toBeLessThan(300 * MIB);
    expect(await pools.remove("z")).toBe("gone");
  });

  it("says PoolFull before the file system is full, and heals when it has grown", async () => {
    const pools = bench().pools();
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
