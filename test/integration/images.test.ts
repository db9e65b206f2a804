/** Images from a real HTTP server into a real pool, converted by the real qemu-img. Needs root. */
import { mkdir, readdir, readFile, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { sha256 } from "./support/image-server.ts";
import { ask, bootable, MIB, never, POOL, run, useImageBench } from "./support/image-bench.ts";

const bench = useImageBench();

describe("an image", () => {
  it("in qcow2 becomes a raw disk of the pool, root's alone, and is fetched once however many ask", async () => {
    const url = bench().server.file("/disk.qcow2", bench().qcow2);
    const images = bench().agent();
    const all = await Promise.all([1, 2, 3, 4].map(() => images.ensure(ask(url, bench().qcow2), never)));
    const path = join(bench().paths.pool(POOL), "images", `${sha256(bench().qcow2).slice(7)}.raw`);
    for (const one of all) expect(one).toEqual({ path, virtualSizeBytes: 24 * MIB });
    expect((await readFile(path)).equals(bench().disk)).toBe(true);
    expect(await stat(path)).toMatchObject({ uid: 0, gid: 0 });
    expect(((await stat(path)).mode & 0o777).toString(8)).toBe("600");
    expect((await stat(path)).blocks * 512, "holes stay holes").toBeLessThan(6 * MIB);
    expect(await run("lsattr", path)).toMatch(/^\S*C/);
    expect(bench().server.count("/disk.qcow2")).toBe(1);
    expect(await bench().downloads()).toEqual([]);
    await bench().agent().ensure(ask(url, bench().qcow2), never);
    expect(bench().server.count("/disk.qcow2"), "kept for the next agent").toBe(1);

    const uid = "11111111-2222-3333-4444-555555555555";
    const volume = await bench().pools.ensureVolume({
      pool: POOL,
      instanceUid: uid,
      disk: "root",
      sizeBytes: 64 * MIB,
      from: { imagePath: path, virtualSize: 24 * MIB },
      uid: 7,
      gid: 7,
    });
    expect((await readFile(volume.path)).subarray(0, bench().disk.length).equals(bench().disk)).toBe(true);
    await bench().pools.removeVolumes(uid);
  });

  it("is taken as raw by its boot sector, and by a sha512 checksum too", async () => {
    const url = bench().server.file("/x", bench().disk);
    const checksum = `sha512:${(await run("sha512sum", join(bench().root, "disk.raw"))).split(" ")[0]}`;
    const made = await bench().agent().ensure({ url, checksum, pool: POOL }, never);
    expect((await readFile(made.path)).equals(bench().disk)).toBe(true);
    expect((await stat(made.path)).blocks * 512).toBeLessThan(6 * MIB);
  });

  it("is taken from another pool of the node instead of fetched twice", async () => {
    const srv = join(bench().root, "srv");
    await mkdir(srv);
    expect(await bench().pools.ensure({ metadata: { name: "q" }, spec: { driver: "dir", source: { path: srv } } })).toMatchObject(
      {
        ready: true,
      },
    );
    const url = bench().server.file("/x", bench().disk);
    const images = bench().agent();
    const [one, two] = await Promise.all([
      images.ensure(ask(url, bench().disk), never),
      images.ensure(ask(url, bench().disk, "q"), never),
    ]);
    expect(one.path).not.toBe(two.path);
    expect((await readFile(two.path)).equals(bench().disk)).toBe(true);
    expect(bench().server.count("/x")).toBe(1);
    expect(await bench().pools.remove("q")).toBe("gone");
    expect(await readdir(srv)).toEqual([]);
  });

  it("goes on where a connection broke, as often as it breaks", async () => {
    const url = bench().server.file("/b", bench().disk, { breakAfter: 5 * MIB });
    const made = await bench().agent().ensure(ask(url, bench().disk), never);
    expect((await readFile(made.path)).equals(bench().disk)).toBe(true);
    const ranges = bench().server.requests.map((request) => request.range);
    expect(ranges[0]).toBeUndefined();
    expect(ranges.length).toBeGreaterThan(3);
    for (const range of ranges.slice(1)) expect(range).toMatch(/^bytes=[1-9]\d*-$/);
  });

  it("goes on in the next agent when the first ended, and not when nobody wants it any more", async () => {
    let open = false;
    const hold = Promise.withResolvers<void>();
    bench().server.on("/h", (request, response) => {
      const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
      if (from > 0) {
        response.writeHead(206, {
          "content-range": `bytes ${from}-${bench().disk.length - 1}/${bench().disk.length}`,
          "content-length": bench().disk.length - from,
          etag: '"h"',
        });
        response.end(bench().disk.subarray(from));
        return;
      }
      response.writeHead(200, { "content-length": bench().disk.length, etag: '"h"' });
      response.write(bench().disk.subarray(0, 8 * MIB), () => {
        open = true;
        hold.resolve();
      });
    });
    const url = bench().server.url("/h");
    const first = new AbortController();
    const slow = { test: { limits: { stallMs: 60_000 } } };
    const gone = bench().agent(slow).ensure(ask(url, bench().disk), first.signal);
    await hold.promise;
    first.abort(new Error("instance deleted"));
    await expect(gone).rejects.toThrow("instance deleted");
    await expect.poll(() => bench().downloads()).toEqual([]);

    const shutdown = new AbortController();
    const ended = bench()
      .agent({ ...slow, shutdown: shutdown.signal })
      .ensure(ask(url, bench().disk), shutdown.signal);
    await expect
      .poll(
        async () =>
          (await stat(join(bench().paths.images, `${sha256(bench().disk).slice(7)}.part`)).catch(() => ({ size: 0 }))).size,
      )
      .toBe(8 * MIB);
    shutdown.abort(new Error("agent ends"));
    await expect(ended).rejects.toThrow("agent ends");
    expect(open).toBe(true);
    await bench().agent(slow).ensure(ask(url, bench().disk), never);
    expect(bench().server.requests.at(-1)?.range).toBe(`bytes=${8 * MIB}-`);
    expect(bench().server.requests.at(-1)?.ifRange).toBe('"h"');
  });

  it("begins anew when the file changed meanwhile", async () => {
    const other = bootable(24 * MIB);
    bench().server.file("/c", other, { breakAfter: 4 * MIB, etag: '"old"' });
    await expect(
      bench()
        .agent({ test: { limits: { tries: 1 } } })
        .ensure(ask(bench().server.url("/c"), bench().disk), never),
    ).rejects.toMatchObject({
      reason: "ImageUnreachable",
    });
    expect((await bench().downloads()).length).toBe(2);
    bench().server.file("/c", bench().disk, { etag: '"new"' });
    const made = await bench()
      .agent()
      .ensure(ask(bench().server.url("/c"), bench().disk), never);
    expect((await readFile(made.path)).equals(bench().disk)).toBe(true);
    expect(await bench().downloads()).toEqual([]);
  });

  it("is fetched in one piece once more when a server glues two files together under one ETag", async () => {
    const other = bootable(24 * MIB);
    bench().server.file("/g", other, { breakAfter: 4 * MIB, etag: '"same"' });
    await expect(
      bench()
        .agent({ test: { limits: { tries: 1 } } })
        .ensure(ask(bench().server.url("/g"), bench().disk), never),
    ).rejects.toMatchObject({
      reason: "ImageUnreachable",
    });
    bench().server.file("/g", bench().disk, { etag: '"same"' });
    const made = await bench()
      .agent()
      .ensure(ask(bench().server.url("/g"), bench().disk), never);
    expect((await readFile(made.path)).equals(bench().disk)).toBe(true);
    expect(bench().server.requests.map(({ range }) => range !== undefined)).toEqual([false, true, false]);
  });

  it("is deleted to make room, longest unused first, and not while it was used just now", async () => {
    const images = bench().agent();
    const url = bench().server.file("/x", bench().disk);
    const other = bootable(24 * MIB);
    const kept = await images.ensure(ask(bench().server.file("/y", other), other), never);
    const old = await images.ensure(ask(url, bench().disk), never);
    const longAgo = new Date(Date.now() - 3600_000);
    await utimes(old.path, longAgo, longAgo);
    await images.prune(POOL, MIB);
    expect(await bench().images()).toEqual([kept.path.split("/").at(-1)]);
  });
});
