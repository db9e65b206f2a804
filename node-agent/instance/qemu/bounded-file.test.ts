import { appendFile, mkdtemp, open, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { realClock } from "../../../kube/clock.ts";
import { bound, keepBounded, tail } from "./bounded-file.ts";

let directory: string;
let file: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "drover-bounded-"));
  file = join(directory, "console.log");
});
afterEach(() => rm(directory, { recursive: true }));

describe("a bounded file", () => {
  test("is left alone below its limit, and where there is none", async () => {
    await bound(file, 10);
    await writeFile(file, "0123456789");
    await bound(file, 10);
    expect(await readFile(file, "utf8")).toBe("0123456789");
  });

  test("keeps its last bytes beside it, and its writer goes on", async () => {
    const writer = await open(file, "a");
    await writer.write("a".repeat(100));
    await writer.write("0123456789");
    await bound(file, 10);
    await writer.write("next");
    await writer.close();
    expect(await readFile(`${file}.1`, "utf8")).toBe("0123456789");
    expect(await readFile(file, "utf8")).toBe("next");
    expect(String(await tail(file, 7))).toBe("789next");
    expect(String(await tail(file, 2))).toBe("xt");
    expect(String(await tail(file, 1000))).toBe("0123456789next");
  });

  test("is empty where there is none", async () => {
    expect(String(await tail(file, 10))).toBe("");
  });

  test("is not followed elsewhere", async () => {
    await symlink("/etc/hostname", file);
    await expect(bound(file, 0)).rejects.toThrow("ELOOP");
    await expect(tail(file, 10)).rejects.toThrow("ELOOP");
  });

  test("is cut while it is being written", async () => {
    const errors: unknown[] = [];
    await writeFile(file, "");
    const stop = keepBounded(file, 1000, { clock: realClock, onError: (error) => errors.push(error) });
    await appendFile(file, "x".repeat(5000));
    await expect.poll(async () => (await stat(file)).size, { timeout: 5000 }).toBe(0);
    await appendFile(file, "y".repeat(2000));
    await expect.poll(async () => (await stat(file)).size, { timeout: 5000 }).toBe(0);
    stop();
    expect(await readFile(`${file}.1`, "utf8")).toBe("y".repeat(1000));
    expect(errors).toEqual([]);
  });
});
