/** Disks in real pools, and pools in directories. Needs root. */
import { appendFile, chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { btrfs, dir, MIB, named, run, UID, usePoolBench } from "./support/pool-bench.ts";

const bench = usePoolBench();

describe("disks", () => {
  it("are clones of an image that share its blocks, grown to their size and given to the guest; a repeat changes nothing", async () => {
    const pools = bench().pools();
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
    expect(volume).toEqual({ path: join(bench().paths.volumes("v", UID), "root.raw"), sizeBytes: 100 * MIB });
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
    const pools = bench().pools();
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
    const srv = join(bench().root, "srv");
    const link = join(bench().root, "link");
    await mkdir(srv);
    await writeFile(join(srv, "mine"), "stays");
    await symlink(srv, link);
    const pools = bench().pools();
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

    await run("umount", bench().paths.pool("p"));
    const next = bench().pools();
    expect(await next.ensure(named("p", dir(link)))).toMatchObject({ ready: true });
    expect(await next.ensure(named("q", dir(srv)))).toMatchObject({ ready: false, reason: "PathInUse" });
    expect(await next.remove("q")).toBe("gone");
    expect(await next.remove("p")).toMatchObject({ reason: "PoolInUse" });
    await next.removeVolumes(UID);
    expect(await next.remove("p")).toBe("gone");
    expect(await readdir(srv)).toEqual(["mine"]);
    expect(await readdir(bench().paths.pools)).toEqual([]);
  });

  it("refuses what is missing, no directory, or the system's; and heals", async () => {
    const pools = bench().pools();
    const srv = join(bench().root, "srv");
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
    for (const path of ["/", "/proc/self", "/sys", "/dev", "/boot", bench().paths.root]) {
      expect(await pools.ensure(named("p", dir(path)))).toMatchObject({ ready: false, reason: "PathRefused" });
    }
    await rm(srv);
    await mkdir(srv);
    expect(await pools.ensure(named("p", dir(srv)))).toMatchObject({ ready: true });
    expect(await pools.remove("p")).toBe("gone");
  });

  it("whose disk is not mounted is gone, and not begun anew below the mount point", async () => {
    const srv = join(bench().root, "srv");
    await mkdir(srv);
    await run("mount", "-t", "tmpfs", "-o", "size=200m", "drover-test", srv);
    const pools = bench().pools();
    expect(await pools.ensure(named("p", dir(srv)))).toMatchObject({ ready: true });
    await run("umount", bench().paths.pool("p"));
    await run("mount", "--move", srv, await mkdtemp(join(bench().root, "away-")));
    const gone = await pools.ensure(named("p", dir(srv)));
    expect(gone).toMatchObject({ ready: false, reason: "PoolGone" });
    expect(await readdir(srv)).toEqual([]);
    const away = (await readdir(bench().root)).find((name) => name.startsWith("away-")) ?? "";
    await run("mount", "--move", join(bench().root, away), srv);
    expect(await pools.ensure(named("p", dir(srv)))).toMatchObject({ ready: true });
    expect(await pools.remove("p")).toBe("gone");
    await run("umount", srv);
  });
});
