/** Images that must not be taken, from servers that err, lie and lead astray. Needs root. */
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { ImagesOptions } from "../../node-agent/image/index.ts";
import { convertCommand } from "../../node-agent/image/convert.ts";
import { withSandbox } from "../../node-agent/image/sandbox.ts";
import { sha256 } from "./support/image-server.ts";
import { ask, MIB, never, POOL, run, useImageBench } from "./support/image-bench.ts";

const bench = useImageBench();

describe("a server on a bad day", () => {
  const refuse = async (
    url: string,
    data: Buffer,
    images = bench().agent(),
  ): Promise<{ reason: string; message: string; retryAfterMs: number }> => {
    try {
      await images.ensure(ask(url, data), never);
    } catch (error) {
      return error as { reason: string; message: string; retryAfterMs: number };
    }
    throw new Error("it was taken");
  };

  it("that says no is quoted by its number only, and the next good answer heals", async () => {
    const error = await refuse(bench().server.url("/none?token=secret"), bench().disk);
    expect(error).toMatchObject({
      reason: "ImageUnreachable",
      message: `${bench().server.url("/none")} answers 404 Not Found; check image.url`,
    });
    expect(error.retryAfterMs).toBeGreaterThan(0);
    expect(await bench().left()).toEqual([]);
    bench().server.file("/none", bench().disk);
    await bench()
      .agent()
      .ensure(ask(bench().server.url("/none"), bench().disk), never);
  });

  it("that fails for a moment is asked again", async () => {
    let asked = 0;
    bench().server.on("/f", (_, response) => {
      asked += 1;
      if (asked < 3) response.writeHead(503).end();
      else response.end(bench().disk);
    });
    await bench()
      .agent()
      .ensure(ask(bench().server.url("/f"), bench().disk), never);
    expect(asked).toBe(3);
  });

  it("that is not there, stalls, trickles, or ends early is named as that", async () => {
    expect(await refuse("http://127.0.0.1:9/x", bench().disk)).toMatchObject({
      reason: "ImageUnreachable",
      message: "could not fetch http://127.0.0.1:9/x: the connection was refused",
    });
    bench().server.on("/stall", (_, response) => {
      response.writeHead(200, { "content-length": bench().disk.length });
      response.write(bench().disk.subarray(0, 100));
    });
    expect((await refuse(bench().server.url("/stall"), bench().disk)).message).toMatch(
      /broke off after 100 of 25165824 bytes: it sent less than 1 KiB within 0.4 s/,
    );
    bench().server.on("/mute", () => undefined);
    expect((await refuse(bench().server.url("/mute"), bench().disk, bench().agent({ test: { answerMs: 300 } }))).message).toMatch(
      /it did not answer within 0.3 s/,
    );
    bench().server.on("/short", (_, response) => {
      response.writeHead(200, { "transfer-encoding": "chunked" });
      response.write(bench().disk.subarray(0, MIB), () => setTimeout(() => response.destroy(), 20));
    });
    expect((await refuse(bench().server.url("/short"), bench().disk)).message).toMatch(/broke off after \d+ bytes/);
    expect(await refuse("https://127.0.0.1:" + bench().server.port + "/tls", bench().disk)).toMatchObject({
      reason: "ImageUnreachable",
    });
    expect(await bench().images()).toEqual([]);
  });

  it("that serves another file than promised is refused with both checksums, and heals", async () => {
    const wrong = Buffer.from("<html>not your image</html>");
    const error = await refuse(bench().server.file("/w", wrong), bench().disk);
    expect(error.reason).toBe("ChecksumMismatch");
    expect(error.message).toContain(sha256(wrong));
    expect(error.message).toContain(sha256(bench().disk));
    expect(error.message).not.toContain("not your image");
    expect(await bench().left()).toEqual([]);
    bench().server.file("/w", bench().disk);
    await bench()
      .agent()
      .ensure(ask(bench().server.url("/w"), bench().disk), never);
  });

  it("that lies about sizes, ranges or encodings is seen through", async () => {
    bench().server.on("/gzip", (_, response) => response.writeHead(200, { "content-encoding": "gzip" }).end(bench().disk));
    expect((await refuse(bench().server.url("/gzip"), bench().disk)).message).toContain(
      "content-encoding gzip, which was not asked for",
    );
    bench().server.on("/range", (request, response) => {
      if (request.headers.range === undefined) {
        response.writeHead(200, { etag: '"r"', "content-length": bench().disk.length });
        response.write(bench().disk.subarray(0, MIB), () => setTimeout(() => response.destroy(), 20));
      } else {
        response.writeHead(206, { etag: '"r"', "content-range": `bytes 0-9/${bench().disk.length}` }).end("0123456789");
      }
    });
    expect((await refuse(bench().server.url("/range"), bench().disk)).message).toMatch(/another part of the file|broke off/);
    bench().server.on("/endless", (_, response) => {
      response.writeHead(200, { "transfer-encoding": "chunked" });
      const more = (): void => void response.write(Buffer.alloc(MIB), () => setImmediate(more));
      more();
    });
    const small = bench().agent({ maxBytes: 100 * MIB });
    expect(await refuse(bench().server.url("/endless"), bench().disk, small)).toMatchObject({ reason: "ImageTooLarge" });
    await rm(bench().paths.images, { recursive: true, force: true });
  });

  it("that announces more than the pool has is refused before a byte is stored", async () => {
    bench().server.on("/huge", (_, response) => response.writeHead(200, { "content-length": 900 * MIB }).write("x"));
    const error = await refuse(bench().server.url("/huge"), bench().disk);
    expect(error.reason).toBe("ImageTooLarge");
    expect(error.message).toMatch(/has 900Mi, and pool p takes at most 512Mi/);
    expect(await bench().left()).toEqual([]);
  });
});

describe("an address that images must not come from", () => {
  const refused = (url: string, more: Partial<ImagesOptions> = {}) => bench().agent(more).ensure(ask(url, bench().disk), never);
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
      bench().server.file("/x", bench().disk);
      const more = { ...closed(addresses), deniedRanges: ["10.96.0.0/12"] };
      await expect(refused(bench().server.url("/x", "images.example"), more)).rejects.toMatchObject({ reason: "ImageForbidden" });
      expect(bench().server.requests).toEqual([]);
    },
  );

  it("behind a redirect, by address or by name, while good redirects are followed", async () => {
    bench().server.file("/good", bench().disk);
    bench().server.on("/hop", (_, response) => response.writeHead(302, { location: "/good" }).end());
    await refused(bench().server.url("/hop"));
    for (const image of await bench().images()) await rm(join(bench().paths.pool(POOL), "images", image));

    for (const location of [
      "http://169.254.169.254/latest/meta-data",
      "http://[::ffff:a9fe:a9fe]/",
      "file:///etc/passwd",
      "ftp://x/y",
      "http://user:pw@127.0.0.1/",
    ]) {
      bench().server.on("/bad", (_, response) => response.writeHead(307, { location }).end());
      await expect(refused(bench().server.url("/bad"))).rejects.toMatchObject({ reason: "ImageForbidden" });
    }
    // The first name is good; where it leads is not.
    const names = async (host: string) => [{ address: host === "images.example" ? "127.0.0.1" : "169.254.169.254", family: 4 }];
    bench().server.on("/name", (_, response) =>
      response.writeHead(301, { location: bench().server.url("/good", "rebound.example") }).end(),
    );
    await expect(
      refused(bench().server.url("/name", "images.example"), { test: { allowLoopback: true, resolve: names } }),
    ).rejects.toThrow("rebound.example (169.254.169.254)");
    bench().server.on("/loop", (_, response) => response.writeHead(302, { location: "/loop" }).end());
    await expect(refused(bench().server.url("/loop"))).rejects.toThrow("more than 5 redirects");
    expect(await bench().left()).toEqual([]);
  });

  it("with a password in it", async () => {
    await expect(refused("http://me:secret@127.0.0.1/x")).rejects.toThrow("must not carry a user name or password");
    await expect(refused("http://me:secret@127.0.0.1/x")).rejects.not.toThrow("secret@");
  });
});

describe("a hostile or wrong file with the right checksum", () => {
  const make = async (name: string, ...args: string[]): Promise<Buffer> => {
    const file = join(bench().root, name);
    await run("qemu-img", "create", "-q", "-f", "qcow2", ...args.slice(0, -1), file, args.at(-1) ?? "16M");
    const data = await readFile(file);
    await rm(file);
    return data;
  };

  it.each([
    ["with a backing file", () => make("b", "-b", join(bench().root, "secret"), "-F", "raw", "16M"), "backing file"],
    ["with an external data file", () => make("d", "-o", `data_file=${join(bench().root, "data")}`, "16M"), "data"],
    ["that is cut off", async () => bench().qcow2.subarray(0, 66_000), "cut off"],
    ["that is a web page", async () => Buffer.from("<html>".padEnd(5000)), "neither qcow2 nor a raw disk"],
    ["that is gzip", async () => Buffer.from("1f8b08000000".padEnd(4000, "0"), "hex"), "compressed with gzip"],
  ])("%s is refused, with nothing left, and not fetched again", async (_, data, words) => {
    const bad = await data();
    const url = bench().server.file("/bad", bad);
    const images = bench().agent();
    await expect(images.ensure(ask(url, bad), never)).rejects.toMatchObject({
      reason: "NotAnImage",
      message: expect.stringContaining(words),
    });
    expect(await bench().left()).toEqual([]);
    await expect(images.ensure(ask(url, bad), never)).rejects.toMatchObject({ reason: "NotAnImage" });
    expect(bench().server.count("/bad")).toBe(1);
  });

  it("whose tables are rubbish is refused in qemu-img's words, with nothing left", async () => {
    const bad = Buffer.from(bench().qcow2);
    const l1 = Number(bad.readBigUInt64BE(40));
    bad.fill(0x7f, l1, l1 + 8);
    await expect(
      bench()
        .agent()
        .ensure(ask(bench().server.file("/t", bad), bad), never),
    ).rejects.toMatchObject({ reason: "ImportFailed", message: expect.stringContaining("qemu-img: ") });
    expect(await bench().left()).toEqual([]);
  });

  it("meets a converter that has programs, no process but itself, no network, and nothing to read or write", async () => {
    const inside = (...command: string[]): Promise<string> =>
      withSandbox(async (directory) => {
        const [enter, args] = convertCommand(MIB, directory);
        return run(enter, ...args.slice(0, args.indexOf("qemu-img")), ...command);
      });
    expect((await inside("ls", "/")).split("\n").filter((name) => !/^(bin|sbin|lib\d*)$/.test(name))).toEqual(["proc", "usr"]);
    expect((await inside("ls", "/proc")).split("\n").filter((name) => /^\d+$/.test(name)).length).toBe(1);
    expect((await inside("cat", "/proc/net/dev")).trim().split("\n").length, "the loopback only").toBe(3);
    await expect(inside("touch", "/usr/x")).rejects.toThrow(/Read-only file system|Permission denied/);
    expect(await inside("id", "-u")).toBe("2099999999");
    expect(await readFile("/proc/self/mountinfo", "utf8")).not.toContain("drover-convert");
  });

  it("larger than the pool is refused with both sizes, and not fetched again", async () => {
    const big = await make("big", "2T");
    const url = bench().server.file("/big", big);
    const images = bench().agent();
    const refused = {
      reason: "ImageTooLarge",
      message: expect.stringContaining("is a disk of 2Ti, and pool p takes at most 512Mi"),
    };
    await expect(images.ensure(ask(url, big), never)).rejects.toMatchObject(refused);
    expect(await bench().left()).toEqual([]);
    await expect(images.ensure(ask(url, big), never)).rejects.toMatchObject(refused);
    expect(bench().server.count("/big")).toBe(1);
  });
});
