/** Images from a real HTTP server into a real pool, converted by the real qemu-img. Needs root. */
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { silentLogger } from "../../kube/logger.ts";
import { Images, type ImagesOptions } from "../../node-agent/image/index.ts";
import { nodePaths, type NodePaths } from "../../node-agent/node.ts";
import { Pools } from "../../node-agent/pool/index.ts";
import { ImageServer, sha256 } from "./support/image-server.ts";

const MIB = 1024 ** 2;
const POOL = "p";
const limits = { stallMs: 400, stallBytes: 1024, retryMs: 5, retryCapMs: 20, tries: 3 };

let root: string;
let paths: NodePaths;
let pools: Pools;
let server: ImageServer;
let disk: Buffer;
let qcow2: Buffer;

const never = new AbortController().signal;
const run = async (command: string, ...args: string[]): Promise<string> =>
  (await execa(command, args, { timeout: 60_000 })).stdout;
const agent = (more: Partial<ImagesOptions> = {}): Images =>
  new Images({
    pools,
    log: silentLogger,
    paths,
    ...more,
    test: { allowLoopback: true, answerMs: 2000, ...more.test, limits: { ...limits, ...more.test?.limits } },
  });
const ask = (url: string, data: Buffer, pool = POOL) => ({ url, checksum: sha256(data), pool });
const imagesOf = async (pool = POOL): Promise<string[]> => readdir(join(paths.pool(pool), "images"));
const downloads = async (): Promise<string[]> => readdir(paths.images).catch(() => []);
const expectNothingLeft = async (): Promise<void> => {
  expect(await imagesOf()).toEqual([]);
  expect(await downloads()).toEqual([]);
};

/** A disk with a boot sector, something at both ends, and nothing in between. */
function bootable(size: number): Buffer {
  const data = Buffer.alloc(size);
  randomBytes(2 * MIB).copy(data);
  data.writeUInt16BE(0x55aa, 510);
  randomBytes(MIB).copy(data, size - MIB);
  return data;
}

beforeAll(async () => {
  process.env["DROVER_NODE_PID"] = String(process.pid);
  root = await mkdtemp(join(tmpdir(), "drover-images-"));
  paths = nodePaths(join(root, "drover"));
  disk = bootable(24 * MIB);
  await writeFile(join(root, "disk.raw"), disk);
  await run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", join(root, "disk.raw"), join(root, "disk.qcow2"));
  qcow2 = await readFile(join(root, "disk.qcow2"));
  await writeFile(join(root, "secret"), "the node's secret");
  pools = new Pools({ nodeName: "test", log: silentLogger, paths });
  const made = await pools.ensure({ metadata: { name: POOL }, spec: { driver: "btrfs", source: { loop: { size: "512Mi" } } } });
  if (!made.ready) throw new Error(made.message);
});

afterAll(async () => {
  const left = [await pools.remove(POOL), await run("losetup", "-j", paths.loop(POOL))].join("");
  if (left !== "gone") throw new Error(`the pool was left: ${left}`);
  await rm(root, { recursive: true, force: true });
  delete process.env["DROVER_NODE_PID"];
});

beforeEach(async () => {
  server = new ImageServer();
  await server.start();
});

afterEach(async () => {
  await server.stop();
  for (const name of await imagesOf()) await rm(join(paths.pool(POOL), "images", name));
  await rm(paths.images, { recursive: true, force: true });
});

describe("an image", () => {
  it("in qcow2 becomes a raw disk of the pool, root's alone, and is fetched once however many ask", async () => {
    const url = server.file("/disk.qcow2", qcow2);
    const images = agent();
    const all = await Promise.all([1, 2, 3, 4].map(() => images.ensure(ask(url, qcow2), never)));
    const path = join(paths.pool(POOL), "images", `${sha256(qcow2).slice(7)}.raw`);
    for (const one of all) expect(one).toEqual({ path, virtualSizeBytes: 24 * MIB });
    expect((await readFile(path)).equals(disk)).toBe(true);
    expect(await stat(path)).toMatchObject({ uid: 0, gid: 0 });
    expect(((await stat(path)).mode & 0o777).toString(8)).toBe("600");
    expect((await stat(path)).blocks * 512, "holes stay holes").toBeLessThan(6 * MIB);
    expect(await run("lsattr", path)).toMatch(/^\S*C/);
    expect(server.count("/disk.qcow2")).toBe(1);
    expect(await downloads()).toEqual([]);
    await agent().ensure(ask(url, qcow2), never);
    expect(server.count("/disk.qcow2"), "kept for the next agent").toBe(1);

    const uid = "11111111-2222-3333-4444-555555555555";
    const volume = await pools.ensureVolume({
      pool: POOL,
      instanceUid: uid,
      disk: "root",
      sizeBytes: 64 * MIB,
      from: { imagePath: path, virtualSize: 24 * MIB },
      uid: 7,
      gid: 7,
    });
    expect((await readFile(volume.path)).subarray(0, disk.length).equals(disk)).toBe(true);
    await pools.removeVolumes(uid);
  });

  it("is taken as raw by its boot sector, and by a sha512 checksum too", async () => {
    const url = server.file("/x", disk);
    const checksum = `sha512:${(await run("sha512sum", join(root, "disk.raw"))).split(" ")[0]}`;
    const made = await agent().ensure({ url, checksum, pool: POOL }, never);
    expect((await readFile(made.path)).equals(disk)).toBe(true);
    expect((await stat(made.path)).blocks * 512).toBeLessThan(6 * MIB);
  });

  it("is taken from another pool of the node instead of fetched twice", async () => {
    const srv = join(root, "srv");
    await mkdir(srv);
    expect(await pools.ensure({ metadata: { name: "q" }, spec: { driver: "dir", source: { path: srv } } })).toMatchObject({
      ready: true,
    });
    const url = server.file("/x", disk);
    const images = agent();
    const [one, two] = await Promise.all([images.ensure(ask(url, disk), never), images.ensure(ask(url, disk, "q"), never)]);
    expect(one.path).not.toBe(two.path);
    expect((await readFile(two.path)).equals(disk)).toBe(true);
    expect(server.count("/x")).toBe(1);
    expect(await pools.remove("q")).toBe("gone");
    expect(await readdir(srv)).toEqual([]);
  });

  it("goes on where a connection broke, as often as it breaks", async () => {
    const url = server.file("/b", disk, { breakAfter: 5 * MIB });
    const made = await agent().ensure(ask(url, disk), never);
    expect((await readFile(made.path)).equals(disk)).toBe(true);
    const ranges = server.requests.map((request) => request.range);
    expect(ranges[0]).toBeUndefined();
    expect(ranges.length).toBeGreaterThan(3);
    for (const range of ranges.slice(1)) expect(range).toMatch(/^bytes=[1-9]\d*-$/);
  });

  it("goes on in the next agent when the first ended, and not when nobody wants it any more", async () => {
    let open = false;
    const hold = Promise.withResolvers<void>();
    server.on("/h", (request, response) => {
      const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
      if (from > 0) {
        response.writeHead(206, {
          "content-range": `bytes ${from}-${disk.length - 1}/${disk.length}`,
          "content-length": disk.length - from,
          etag: '"h"',
        });
        response.end(disk.subarray(from));
        return;
      }
      response.writeHead(200, { "content-length": disk.length, etag: '"h"' });
      response.write(disk.subarray(0, 8 * MIB), () => {
        open = true;
        hold.resolve();
      });
    });
    const url = server.url("/h");
    const first = new AbortController();
    const slow = { test: { limits: { stallMs: 60_000 } } };
    const gone = agent(slow).ensure(ask(url, disk), first.signal);
    await hold.promise;
    first.abort(new Error("instance deleted"));
    await expect(gone).rejects.toThrow("instance deleted");
    await expect.poll(downloads).toEqual([]);

    const shutdown = new AbortController();
    const ended = agent({ ...slow, shutdown: shutdown.signal }).ensure(ask(url, disk), shutdown.signal);
    await expect
      .poll(async () => (await stat(join(paths.images, `${sha256(disk).slice(7)}.part`)).catch(() => ({ size: 0 }))).size)
      .toBe(8 * MIB);
    shutdown.abort(new Error("agent ends"));
    await expect(ended).rejects.toThrow("agent ends");
    expect(open).toBe(true);
    await agent(slow).ensure(ask(url, disk), never);
    expect(server.requests.at(-1)?.range).toBe(`bytes=${8 * MIB}-`);
    expect(server.requests.at(-1)?.ifRange).toBe('"h"');
  });

  it("begins anew when the file changed meanwhile", async () => {
    const other = bootable(24 * MIB);
    server.file("/c", other, { breakAfter: 4 * MIB, etag: '"old"' });
    await expect(agent({ test: { limits: { tries: 1 } } }).ensure(ask(server.url("/c"), disk), never)).rejects.toMatchObject({
      reason: "ImageUnreachable",
    });
    expect((await downloads()).length).toBe(2);
    server.file("/c", disk, { etag: '"new"' });
    const made = await agent().ensure(ask(server.url("/c"), disk), never);
    expect((await readFile(made.path)).equals(disk)).toBe(true);
    expect(await downloads()).toEqual([]);
  });

  it("is fetched in one piece once more when a server glues two files together under one ETag", async () => {
    const other = bootable(24 * MIB);
    server.file("/g", other, { breakAfter: 4 * MIB, etag: '"same"' });
    await expect(agent({ test: { limits: { tries: 1 } } }).ensure(ask(server.url("/g"), disk), never)).rejects.toMatchObject({
      reason: "ImageUnreachable",
    });
    server.file("/g", disk, { etag: '"same"' });
    const made = await agent().ensure(ask(server.url("/g"), disk), never);
    expect((await readFile(made.path)).equals(disk)).toBe(true);
    expect(server.requests.map(({ range }) => range !== undefined)).toEqual([false, true, false]);
  });

  it("is deleted to make room, longest unused first, and not while it was used just now", async () => {
    const images = agent();
    const url = server.file("/x", disk);
    const other = bootable(24 * MIB);
    const kept = await images.ensure(ask(server.file("/y", other), other), never);
    const old = await images.ensure(ask(url, disk), never);
    const longAgo = new Date(Date.now() - 3600_000);
    await utimes(old.path, longAgo, longAgo);
    await images.prune(POOL, MIB);
    expect(await imagesOf()).toEqual([kept.path.split("/").at(-1)]);
  });
});

describe("a server on a bad day", () => {
  const refuse = async (
    url: string,
    data: Buffer,
    images = agent(),
  ): Promise<{ reason: string; message: string; retryAfterMs: number }> => {
    try {
      await images.ensure(ask(url, data), never);
    } catch (error) {
      return error as { reason: string; message: string; retryAfterMs: number };
    }
    throw new Error("it was taken");
  };

  it("that says no is quoted by its number only, and the next good answer heals", async () => {
    const error = await refuse(server.url("/none?token=secret"), disk);
    expect(error).toMatchObject({
      reason: "ImageUnreachable",
      message: `${server.url("/none")} answers 404 Not Found; check image.url`,
    });
    expect(error.retryAfterMs).toBeGreaterThan(0);
    await expectNothingLeft();
    server.file("/none", disk);
    await agent().ensure(ask(server.url("/none"), disk), never);
  });

  it("that fails for a moment is asked again", async () => {
    let asked = 0;
    server.on("/f", (_, response) => {
      asked += 1;
      if (asked < 3) response.writeHead(503).end();
      else response.end(disk);
    });
    await agent().ensure(ask(server.url("/f"), disk), never);
    expect(asked).toBe(3);
  });

  it("that is not there, stalls, trickles, or ends early is named as that", async () => {
    expect(await refuse("http://127.0.0.1:9/x", disk)).toMatchObject({
      reason: "ImageUnreachable",
      message: "could not fetch http://127.0.0.1:9/x: the connection was refused",
    });
    server.on("/stall", (_, response) => {
      response.writeHead(200, { "content-length": disk.length });
      response.write(disk.subarray(0, 100));
    });
    expect((await refuse(server.url("/stall"), disk)).message).toMatch(
      /broke off after 100 of 25165824 bytes: it sent less than 1 KiB within 0.4 s/,
    );
    server.on("/mute", () => undefined);
    expect((await refuse(server.url("/mute"), disk, agent({ test: { answerMs: 300 } }))).message).toMatch(
      /it did not answer within 0.3 s/,
    );
    server.on("/short", (_, response) => {
      response.writeHead(200, { "transfer-encoding": "chunked" });
      response.write(disk.subarray(0, MIB), () => setTimeout(() => response.destroy(), 20));
    });
    expect((await refuse(server.url("/short"), disk)).message).toMatch(/broke off after \d+ bytes/);
    expect(await refuse("https://127.0.0.1:" + server.port + "/tls", disk)).toMatchObject({ reason: "ImageUnreachable" });
    expect(await imagesOf()).toEqual([]);
  });

  it("that serves another file than promised is refused with both checksums, and heals", async () => {
    const wrong = Buffer.from("<html>not your image</html>");
    const error = await refuse(server.file("/w", wrong), disk);
    expect(error.reason).toBe("ChecksumMismatch");
    expect(error.message).toContain(sha256(wrong));
    expect(error.message).toContain(sha256(disk));
    expect(error.message).not.toContain("not your image");
    await expectNothingLeft();
    server.file("/w", disk);
    await agent().ensure(ask(server.url("/w"), disk), never);
  });

  it("that lies about sizes, ranges or encodings is seen through", async () => {
    server.on("/gzip", (_, response) => response.writeHead(200, { "content-encoding": "gzip" }).end(disk));
    expect((await refuse(server.url("/gzip"), disk)).message).toContain("content-encoding gzip, which was not asked for");
    server.on("/range", (request, response) => {
      if (request.headers.range === undefined) {
        response.writeHead(200, { etag: '"r"', "content-length": disk.length });
        response.write(disk.subarray(0, MIB), () => setTimeout(() => response.destroy(), 20));
      } else {
        response.writeHead(206, { etag: '"r"', "content-range": `bytes 0-9/${disk.length}` }).end("0123456789");
      }
    });
    expect((await refuse(server.url("/range"), disk)).message).toMatch(/another part of the file|broke off/);
    server.on("/endless", (_, response) => {
      response.writeHead(200, { "transfer-encoding": "chunked" });
      const more = (): void => void response.write(Buffer.alloc(MIB), () => setImmediate(more));
      more();
    });
    const small = agent({ maxBytes: 100 * MIB });
    expect(await refuse(server.url("/endless"), disk, small)).toMatchObject({ reason: "ImageTooLarge" });
    await rm(paths.images, { recursive: true, force: true });
  });

  it("that announces more than the pool has is refused before a byte is stored", async () => {
    server.on("/huge", (_, response) => response.writeHead(200, { "content-length": 900 * MIB }).write("x"));
    const error = await refuse(server.url("/huge"), disk);
    expect(error.reason).toBe("ImageTooLarge");
    expect(error.message).toMatch(/has 900Mi, and pool p takes at most 512Mi/);
    await expectNothingLeft();
  });
});

describe("an address that images must not come from", () => {
  const refused = (url: string, more: Partial<ImagesOptions> = {}) => agent(more).ensure(ask(url, disk), never);
  const closed = (resolve: string[]): Partial<ImagesOptions> => ({
    test: {
      allowLoopback: false,
      resolve: async () => resolve.map((address) => ({ address, family: address.includes(":") ? 6 : 4 })),
    },
  });

  it.each([
    "http://127.0.0.1:1/x",
    "http://0x7f.1/x",
    "http://2130706433/x",
    "http://[::1]/x",
    "http://[::ffff:169.254.169.254]/x",
    "http://169.254.169.254/latest",
  ])("written out as %s", async (url) => {
    await expect(refused(url, { test: { allowLoopback: false } })).rejects.toMatchObject({ reason: "ImageForbidden" });
  });

  it.each([["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["fe80::1"], ["10.96.0.1"]])(
    "behind a name that resolves to %s %s",
    async (...addresses) => {
      server.file("/x", disk);
      const more = { ...closed(addresses), deniedRanges: ["10.96.0.0/12"] };
      await expect(refused(server.url("/x", "images.example"), more)).rejects.toMatchObject({ reason: "ImageForbidden" });
      expect(server.requests).toEqual([]);
    },
  );

  it("behind a redirect, by address or by name, while good redirects are followed", async () => {
    server.file("/good", disk);
    server.on("/hop", (_, response) => response.writeHead(302, { location: "/good" }).end());
    await refused(server.url("/hop"));
    for (const image of await imagesOf()) await rm(join(paths.pool(POOL), "images", image));

    for (const location of [
      "http://169.254.169.254/latest/meta-data",
      "http://[::ffff:a9fe:a9fe]/",
      "file:///etc/passwd",
      "ftp://x/y",
      "http://user:pw@127.0.0.1/",
    ]) {
      server.on("/bad", (_, response) => response.writeHead(307, { location }).end());
      await expect(refused(server.url("/bad"))).rejects.toMatchObject({ reason: "ImageForbidden" });
    }
    // The first name is good; where it leads is not.
    const names = async (host: string) => [{ address: host === "images.example" ? "127.0.0.1" : "169.254.169.254", family: 4 }];
    server.on("/name", (_, response) => response.writeHead(301, { location: server.url("/good", "rebound.example") }).end());
    await expect(
      refused(server.url("/name", "images.example"), { test: { allowLoopback: true, resolve: names } }),
    ).rejects.toThrow("rebound.example (169.254.169.254)");
    server.on("/loop", (_, response) => response.writeHead(302, { location: "/loop" }).end());
    await expect(refused(server.url("/loop"))).rejects.toThrow("more than 5 redirects");
    await expectNothingLeft();
  });

  it("with a password in it", async () => {
    await expect(refused("http://me:secret@127.0.0.1/x")).rejects.toThrow("must not carry a user name or password");
    await expect(refused("http://me:secret@127.0.0.1/x")).rejects.not.toThrow("secret@");
  });
});

describe("a hostile or wrong file with the right checksum", () => {
  const make = async (name: string, ...args: string[]): Promise<Buffer> => {
    const file = join(root, name);
    await run("qemu-img", "create", "-q", "-f", "qcow2", ...args.slice(0, -1), file, args.at(-1) ?? "16M");
    const data = await readFile(file);
    await rm(file);
    return data;
  };

  it.each([
    ["with a backing file", () => make("b", "-b", join(root, "secret"), "-F", "raw", "16M"), "backing file"],
    ["with an external data file", () => make("d", "-o", `data_file=${join(root, "data")}`, "16M"), "data"],
    ["that is cut off", async () => qcow2.subarray(0, 66_000), "cut off"],
    ["that is a web page", async () => Buffer.from("<html>".padEnd(5000)), "neither qcow2 nor a raw disk"],
    ["that is gzip", async () => Buffer.from("1f8b08000000".padEnd(4000, "0"), "hex"), "compressed with gzip"],
  ])("%s is refused, with nothing left, and not fetched again", async (_, data, words) => {
    const bad = await data();
    const url = server.file("/bad", bad);
    const images = agent();
    await expect(images.ensure(ask(url, bad), never)).rejects.toMatchObject({
      reason: "NotAnImage",
      message: expect.stringContaining(words),
    });
    await expectNothingLeft();
    await expect(images.ensure(ask(url, bad), never)).rejects.toMatchObject({ reason: "NotAnImage" });
    expect(server.count("/bad")).toBe(1);
  });

  it("whose tables are rubbish is refused in qemu-img's words, with nothing left", async () => {
    const bad = Buffer.from(qcow2);
    const l1 = Number(bad.readBigUInt64BE(40));
    bad.fill(0x7f, l1, l1 + 8);
    await expect(agent().ensure(ask(server.file("/t", bad), bad), never)).rejects.toMatchObject({ reason: "ImportFailed" });
    await expectNothingLeft();
  });

  it("larger than the pool is refused with both sizes, and not fetched again", async () => {
    const big = await make("big", "2T");
    const url = server.file("/big", big);
    const images = agent();
    const refused = {
      reason: "ImageTooLarge",
      message: expect.stringContaining("is a disk of 2Ti, and pool p takes at most 512Mi"),
    };
    await expect(images.ensure(ask(url, big), never)).rejects.toMatchObject(refused);
    await expectNothingLeft();
    await expect(images.ensure(ask(url, big), never)).rejects.toMatchObject(refused);
    expect(server.count("/big")).toBe(1);
  });
});
