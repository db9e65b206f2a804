import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Instance } from "../crds/instance.ts";
import { silentLogger } from "../kube/logger.ts";
import { runtimesWith } from "./host/node-host.ts";
import type { InstanceDriver, Observed } from "./instance/driver.ts";
import { instance } from "./instance/fixtures.ts";
import { removeUnusedRuntimes, Runtimes } from "./runtimes.ts";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "drover-runtimes-"));
  for (const version of ["r1", "r2", "r3", "r4", ".copying"]) await mkdir(join(root, "runtime", version), { recursive: true });
  await writeFile(join(root, "runtime", "current"), "r3\n");
});
afterEach(() => rm(root, { recursive: true, force: true }));

const there = async (): Promise<string[]> => (await readdir(join(root, "runtime"))).filter((name) => name !== "current");
const driverWith = (run: object): Pick<InstanceDriver, "list" | "observe"> => ({
  list: () => Promise.resolve(["uid-1"]),
  observe: () => Promise.resolve({ state: "running", note: { run } } as unknown as Observed),
});

describe("runtimes that nothing needs", () => {
  it.each<[string, object, string[]]>([
    ["one that a guest runs in", { runtimeVersion: "r1" }, ["r2", "r4"]],
    ["one that it is about to run in", { runtimeVersion: "r1", next: { runtimeVersion: "r2" } }, ["r4"]],
    ["one that it has just left", { runtimeVersion: "r2", previous: { runtimeVersion: "r1" } }, ["r4"]],
  ])("are deleted, but not %s", async (_, run, removed) => {
    expect(await removeUnusedRuntimes(join(root, "runtime"), new Set(), driverWith(run))).toEqual(removed);
    expect(await there()).toEqual([".copying", "r1", "r2", "r3", "r4"].filter((name) => !removed.includes(name)));
  });

  it("are kept where somebody names them", async () => {
    const driver = driverWith({ runtimeVersion: "r3" });
    expect(await removeUnusedRuntimes(join(root, "runtime"), new Set(["r4"]), driver)).toEqual(["r1", "r2"]);
  });
});

describe("what runtimes can run", () => {
  const asked: string[] = [];
  const make = (fails = ""): Runtimes =>
    new Runtimes({
      directory: join(root, "runtime"),
      cacheFile: join(root, "run", "runtimes.json"),
      ask: (version) => {
        asked.push(version);
        if (version === fails) return Promise.reject(new Error("it does not start"));
        return Promise.resolve({ qemuVersion: `10.0.${version.slice(1)}`, machineTypes: ["pc-q35-10.0"] });
      },
      log: silentLogger,
    });
  beforeEach(() => void asked.splice(0));

  it("is asked once for each, whichever agent asks", async () => {
    const one = make();
    expect(one.seen).toBeUndefined();
    expect(await one.look()).toBe(true);
    expect(one.seen?.map(({ version, qemuVersion }) => [version, qemuVersion])).toEqual([
      ["r1", "10.0.1"],
      ["r2", "10.0.2"],
      ["r3", "10.0.3"],
      ["r4", "10.0.4"],
    ]);
    expect(await one.look()).toBe(false);
    expect(await make().facts("r2")).toEqual({ qemuVersion: "10.0.2", machineTypes: ["pc-q35-10.0"] });
    expect(asked).toEqual(["r1", "r2", "r3", "r4"]);
    await rm(join(root, "runtime", "r1"), { recursive: true });
    expect(await one.look()).toBe(true);
    expect(one.seen?.length).toBe(3);
    expect(await one.facts("r1")).toBeUndefined();
    expect(await one.facts("..")).toBeUndefined();
  });

  it("is not known of one whose QEMU does not say; whoever wants that one hears why", async () => {
    const one = make("r2");
    await one.look();
    await one.look();
    expect(one.seen?.find(({ version }) => version === "r2")).toEqual({ version: "r2" });
    expect(asked.filter((version) => version === "r2").length).toBe(1);
    await expect(one.facts("r2")).rejects.toThrow("it does not start");
  });
});

describe("how many instances run in which runtime", () => {
  const running = (runtimeVersion: string, state: "Running" | "Stopped" = "Running"): Instance =>
    instance({ status: { guest: { state, runtimeVersion } } });
  it("counts those that run, also in one whose files are gone", () =>
    expect(
      runtimesWith([{ version: "r1", qemuVersion: "10.0.1" }, { version: "r2" }], "r2", [
        running("r1"),
        running("r1"),
        running("r0"),
        running("r2", "Stopped"),
      ]),
    ).toEqual([
      { version: "r1", qemuVersion: "10.0.1", current: false, instances: 2 },
      { version: "r2", current: true, instances: 0 },
      { version: "r0", current: false, instances: 1 },
    ]));
  it("is not known before the runtimes are", () => expect(runtimesWith(undefined, "r1", [])).toBeUndefined());
});
