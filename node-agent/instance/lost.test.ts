import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Instance } from "../../crds/instance.ts";
import { tapName } from "../../crds/names.ts";
import { FakeClock, silentLogger } from "../../kube/index.ts";
import { nodePaths } from "../node.ts";
import { exited, FakeDriver, instance, NOW, running } from "./fixtures.ts";
import { LostInstances, lostVerdict } from "./lost.ts";

test.each<[string, Instance | undefined, string]>([
  ["none", undefined, "gone"],
  ["another of that name", instance({ metadata: { uid: "uid-2" } }), "gone"],
  ["it, here", instance(), "known"],
  ["it, without a node", instance({ status: {} }), "known"],
  ["it, elsewhere", instance({ status: { nodeName: "n2" } }), "elsewhere"],
])("the API server has %s: %s", (_, answer, verdict) => {
  expect(lostVerdict({ instanceUid: "uid-1" }, answer, "n1")).toBe(verdict);
});

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "dlost-"));
});
afterEach(() => rm(root, { recursive: true, force: true }));

const setup = () => {
  const clock = new FakeClock(NOW);
  const driver = new FakeDriver();
  const swept: { taps: ReadonlySet<string>; instances: ReadonlySet<string> }[] = [];
  const state = {
    synced: true,
    list: [] as Instance[],
    live: (): Promise<Instance | undefined> => Promise.resolve(undefined),
    moving: [] as { instanceUid: string; nics: string[] }[],
  };
  const lost = new LostInstances({
    client: { get: (() => state.live()) as never },
    instances: {
      list: () => state.list,
      get hasSynced() {
        return state.synced;
      },
    },
    driver,
    nics: {
      removeAll: () => Promise.resolve(void driver.calls.push("remove taps")),
      sweep: (known) => {
        swept.push(known());
        return Promise.resolve([]);
      },
    },
    moving: () => state.moving,
    nodeName: "n1",
    paths: nodePaths(root),
    clock,
    log: silentLogger,
  });
  driver.seen.set("uid-1", running());
  return { clock, driver, lost, state, swept, check: () => lost.check(new AbortController().signal) };
};

test("gone is what the API server says twice, half a minute apart; the disks stay and are told", async () => {
  const { clock, driver, lost, check } = setup();
  const disks = join(root, "pools/default/volumes/uid-1");
  await mkdir(disks, { recursive: true });
  await writeFile(join(disks, "root.raw"), "data");
  await check();
  await clock.advance(29_000);
  await check();
  expect(driver.calls).toEqual([]);
  await clock.advance(1_000);
  await check();
  expect(driver.calls).toEqual(["stop clean", "remove taps", "forget"]);
  expect(await lost.disks()).toEqual([
    {
      instanceUid: "uid-1",
      namespace: "default",
      name: "web",
      since: new Date(NOW + 30_000).toISOString(),
      directories: [disks],
    },
  ]);
  await rm(disks, { recursive: true });
  expect(await lost.disks()).toEqual([]);
});

test("not to know destroys nothing", async () => {
  const { clock, driver, state, swept, check } = setup();
  state.synced = false;
  await check();
  state.synced = true;
  state.live = () => Promise.reject(new Error("the API server is away"));
  await expect(check()).rejects.toThrow("away");
  await clock.advance(60_000);
  await expect(check()).rejects.toThrow("away");
  expect(driver.calls).toEqual([]);
  expect(swept).toEqual([]);
});

test("one that comes back in between is known again", async () => {
  const { clock, driver, state, check } = setup();
  await check();
  state.list = [instance()];
  await clock.advance(60_000);
  await check();
  state.list = [];
  await check();
  expect(driver.calls).toEqual([]);
});

test("one that is on another node by now is left alone", async () => {
  const { clock, driver, state, check } = setup();
  state.live = () => Promise.resolve(instance({ status: { nodeName: "n2" } }));
  await check();
  await clock.advance(60_000);
  await check();
  expect(driver.calls).toEqual([]);
});

test("what a move brings, or takes, is that move's business", async () => {
  const { clock, driver, state, swept, check } = setup();
  state.moving = [{ instanceUid: "uid-1", nics: ["eth0"] }];
  await check();
  await clock.advance(60_000);
  await check();
  expect(driver.calls).toEqual([]);
  expect([...(swept[0]?.taps ?? [])]).toEqual([tapName("uid-1", "eth0")]);
});

test("NICs are swept against all that is known: the API's and the node's", async () => {
  const { state, swept, check } = setup();
  state.list = [instance({ metadata: { uid: "uid-9" } })];
  await check();
  expect([...(swept[0]?.instances ?? [])]).toEqual(["uid-9", "uid-1"]);
  expect(swept[0]?.taps.size).toBe(1);
});

test("what is left of an instance that runs on another node goes when its disks are shared", async () => {
  const { driver, state, check } = setup();
  const note = async (pool: string, shared: boolean) => {
    await mkdir(join(root, `pools/${pool}/volumes/uid-1`), { recursive: true });
    await writeFile(join(root, `pools/${pool}.json`), JSON.stringify({ driver: "dir", id: "1", path: "/srv", shared }));
  };
  state.live = () => Promise.resolve(instance({ status: { nodeName: "n2" } }));
  await note("common", true);
  await check();
  expect(driver.calls).toEqual([]);
  driver.seen.set("uid-1", exited({ reason: "Stopped", message: "it was asked to stop" }, {}));
  await note("own", false);
  await check();
  expect(driver.calls).toEqual([]);
  await rm(join(root, "pools/own/volumes"), { recursive: true });
  await check();
  expect(driver.calls).toEqual(["remove taps", "forget"]);
});
