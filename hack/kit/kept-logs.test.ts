import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterEach, beforeEach, expect, test } from "vitest";
import { KEEP } from "./kept-logs.ts";

let root: string;
let log: string;
let kept: string;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "drover-kept-logs-"));
  [log, kept] = [join(root, "stderr.log"), join(root, "kept")];
  await writeFile(log, "the first QEMU");
});
afterEach(() => rm(root, { recursive: true }));

const keep = async (env: Record<string, string> = {}, prefix = ""): Promise<void> =>
  void (await execa("sh", ["-c", KEEP, root, kept, prefix], { env }));
const found = async (): Promise<string[]> =>
  (await Promise.all((await readdir(kept)).map((name) => readFile(join(kept, name), "utf8")))).toSorted();

test("a log stays when its QEMU has gone, under the name of its inode", async () => {
  await keep();
  await keep();
  expect(await readdir(kept)).toEqual([String((await stat(log)).ino)]);
  await rm(log);
  await writeFile(log, "the second QEMU");
  await keep();
  expect(await found()).toEqual(["the first QEMU", "the second QEMU"]);
  expect((await readdir(root)).toSorted()).toEqual(["kept", "stderr.log"]);
});

test("their names begin as wanted", async () => {
  await keep({}, "uid.");
  expect(await readdir(kept)).toEqual([`uid.${(await stat(log)).ino}`]);
});

test("nothing to keep is no error", async () => {
  await rm(log);
  await keep();
  expect(await readdir(kept)).toEqual([]);
});

test("a QEMU that follows while its inode is asked for is still one", async () => {
  const bin = join(root, "bin");
  await mkdir(bin);
  const next = '#!/bin/sh\n/usr/bin/stat "$@"\nrm -f "$LOG"; echo "the second QEMU" > "$LOG"\n';
  await writeFile(join(bin, "stat"), next, { mode: 0o755 });
  await keep({ PATH: `${bin}:${process.env["PATH"]}`, LOG: log });
  await keep();
  expect(await found()).toEqual(["the first QEMU", "the second QEMU\n"]);
});
