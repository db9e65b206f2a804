import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { UserError } from "./errors.ts";
import { nodeFacts, type NodeFactsOptions } from "./facts.ts";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "dfacts-"));
  await writeFile(join(root, "current"), "10.0.13-abc\n");
});
afterEach(() => rm(root, { recursive: true, force: true }));

const tcg = {
  accelerator: "TCG" as const,
  acceleratorMessage: "the node has no /dev/kvm",
  qemuVersion: "10.0.13",
  machineTypes: ["pc-q35-10.0"],
  cpuModel: "max",
};
const probes: string[] = [];

const find = (over: Partial<NodeFactsOptions> = {}) => {
  probes.length = 0;
  const options: NodeFactsOptions = {
    mode: "auto",
    probe: (version) => Promise.resolve(void probes.push(version)).then(() => tcg),
    runtimes: root,
    runtimeVersion: undefined,
    cacheFile: join(root, "run/facts.json"),
    bootId: "boot-1",
    ...over,
  };
  return nodeFacts(options, new AbortController().signal);
};

test("a guest is run once per boot, runtime and mode", async () => {
  expect(await find()).toEqual({ ...tcg, runtimeVersion: "10.0.13-abc" });
  expect(await find()).toEqual({ ...tcg, runtimeVersion: "10.0.13-abc" });
  expect(probes).toEqual([]);
  for (const over of [{ bootId: "boot-2" }, { mode: "tcg" }, { runtimeVersion: "11" }] as const) {
    await find(over);
    expect(probes).toHaveLength(1);
  }
});

test("half a memory is none", async () => {
  await find();
  await writeFile(join(root, "run/facts.json"), '{"bootId":"boot-1","mode":"auto","fac');
  await find();
  expect(probes).toHaveLength(1);
});

test("KVM that was asked for and does not work is said, not replaced, and not remembered", async () => {
  const modes: string[] = [];
  const fail = (_: string, mode: string) => {
    modes.push(mode);
    return Promise.reject(new UserError("NoKvm", "this node has no KVM that works: it has no /dev/kvm"));
  };
  for (let times = 0; times < 2; times++) {
    await expect(find({ mode: "kvm", probe: fail })).rejects.toMatchObject({ reason: "NoKvm" });
  }
  expect(modes).toEqual(["kvm", "kvm"]);
});

test("a runtime that is not there is named", async () => {
  await rm(join(root, "current"));
  await expect(find()).rejects.toMatchObject({ reason: "RuntimeMissing" });
});
