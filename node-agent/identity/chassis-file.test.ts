import { chmod, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { readChassisFile, writeChassisFile } from "./chassis-file.ts";

const material = {
  key: "-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n",
  cert: "-----BEGIN CERTIFICATE-----\nREVG\n-----END CERTIFICATE-----\n",
  ca: "",
};
let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "drover-chassis-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

it("is for its owner alone, wherever the directory came from", async () => {
  await chmod(directory, 0o755);
  await writeChassisFile(directory, "", material);
  expect((await stat(directory)).mode & 0o777).toBe(0o700);
  expect((await stat(join(directory, "chassis.pem"))).mode & 0o777).toBe(0o600);
  expect(await readdir(directory)).toEqual(["chassis.pem"]);
});

it("is read again by the next process, while the authority is the same", async () => {
  await writeChassisFile(directory, "2026", material);
  expect(await readChassisFile(directory, "2026")).toEqual(material);
  expect(await readChassisFile(directory, "2027")).toBeUndefined();
});

it("is nothing where it is not there, or not whole", async () => {
  expect(await readChassisFile(directory, "")).toBeUndefined();
  await writeFile(join(directory, "chassis.pem"), `drover.dev/authority: ""\n${material.key}`);
  expect(await readChassisFile(directory, "")).toBeUndefined();
});
