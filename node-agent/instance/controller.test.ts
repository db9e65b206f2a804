import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { GuestStatus, Instance } from "../../crds/instance.ts";
import { tapName } from "../../crds/names.ts";
import { FakeClock, silentLogger } from "../../kube/index.ts";
import type { ClaimState } from "../claim/state.ts";
import { UserError } from "../errors.ts";
import type { Nics } from "../nic/index.ts";
import { nodePaths } from "../node.ts";
import type { VolumeRequest } from "../pool/volumes.ts";
import { InstanceController, type InstanceParts } from "./controller.ts";
import { at, exited, FakeDriver, instance, NOW, note, running } from "./fixtures.ts";
import { Reporter } from "./reporter.ts";

const key = { namespace: "default", name: "web" };
const tap = tapName("uid-1", "eth0");

/** A node of which every part only remembers what it was asked. */
class World {
  readonly clock = new FakeClock(NOW);
  readonly driver = new FakeDriver();
  readonly calls = this.driver.calls;
  readonly written: GuestStatus[] = [];
  readonly queued: string[] = [];
  readonly claimStates = new Map<string, ClaimState>([["claim-1", { state: "alive" }]]);
  installed = true;
  image: (signal: AbortSignal) => Promise<{ path: string; virtualSizeBytes: number }> = () =>
    Promise.resolve({ path: "/pool/images/a.raw", virtualSizeBytes: 1024 });
  readonly volumes: VolumeRequest[] = [];
  volumeError: Error | undefined;
  tapError: Error | undefined;
  poolReady = true;
  hold: "taps" | "all" | undefined;
  holdersLeft = false;
  object: Instance | undefined = instance();
  readonly controller: InstanceController;

  constructor(root: string) {
    const apply = (_: unknown, object: { status: { guest: GuestStatus } }) => {
      this.written.push(object.status.guest);
      return Promise.resolve(object);
    };
    const reporter = new Reporter({ client: { apply } as never, clock: this.clock, log: silentLogger });
    const parts: InstanceParts = {
      nodeName: "n1",
      instances: { get: () => this.object },
      driver: this.driver,
      pools: {
        ensureVolume: (request) => {
          const { instanceUid, from } = request;
          this.volumes.push(request);
          this.calls.push(from === undefined ? "volume" : "volume from image");
          if (this.volumeError !== undefined) return Promise.reject(this.volumeError);
          return Promise.resolve({ path: join(root, `${instanceUid}.raw`), sizeBytes: 1024 ** 3 });
        },
        removeVolumes: () => Promise.resolve(void this.calls.push("remove volumes")),
        place: () => Promise.resolve({ ready: true, volumes: join(root, "volumes"), images: join(root, "images"), scratch: "" }),
      },
      images: {
        ensure: (_, signal) => {
          this.calls.push("image");
          return this.image(signal);
        },
      },
      nics: {
        ensure: () => {
          this.calls.push("tap");
          return this.tapError === undefined ? Promise.resolve({ tap }) : Promise.reject(this.tapError);
        },
        removeAll: () => {
          this.calls.push("remove taps");
          return this.tapError === undefined ? Promise.resolve() : Promise.reject(this.tapError);
        },
        installed: () => this.installed,
      } as unknown as Nics,
      claims: {
        of: () => [],
        state: (_, { uid }) => Promise.resolve(this.claimStates.get(uid) ?? { state: "unknown" }),
        endHolders: () => Promise.resolve(this.holdersLeft),
      },
      hostFacts: () =>
        Promise.resolve({
          accelerator: "TCG",
          runtimeVersion: "r1",
          qemuVersion: "10.0.13",
          machineTypes: ["pc-q35-10.0"],
          cpuModel: "qemu64",
        }),
      reporter,
      hold: () => this.hold,
      pool: () => (this.poolReady ? { ready: true } : { ready: false, reason: "PoolGone", message: "pool default is gone" }),
      paths: nodePaths(root),
      clock: this.clock,
      log: silentLogger,
    };
    this.controller = new InstanceController(parts, (one) => this.queued.push(one.name));
  }

  async reconcile(): Promise<number | undefined> {
    const again = await this.controller.reconcile(key, new AbortController().signal);
    await this.clock.advance(0);
    return again?.afterMs;
  }

  last(): GuestStatus | undefined {
    return this.written.at(-1);
  }

  set(over: Partial<Instance["spec"]>, metadata: Partial<Instance["metadata"]> = {}): void {
    const base = this.object ?? instance();
    this.object = { ...base, spec: { ...base.spec, ...over }, metadata: { ...base.metadata, ...metadata } };
    this.controller.changed(key);
  }
}

let root: string;
let world: World;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "dinst-"));
  world = new World(root);
});
afterEach(() => rm(root, { recursive: true, force: true }));

describe("a move of it", () => {
  test("leaves the guest to the move, and its taps alive", async () => {
    await world.reconcile();
    world.hold = "taps";
    world.set({ power: "Stopped" });
    world.calls.length = 0;
    await world.reconcile();
    expect(world.calls).toEqual(["prepare", "tap"]);
    world.driver.seen.set("uid-1", running({ state: "paused", runState: "paused" }));
    const writes = world.written.length;
    await world.reconcile();
    await world.clock.advance(20_000);
    expect(world.written).toHaveLength(writes);
  });

  test("keeps everything else away near its pause, and from a guest that has left", async () => {
    await world.reconcile();
    world.hold = "all";
    world.driver.seen.delete("uid-1");
    world.calls.length = 0;
    await world.reconcile();
    expect(world.calls).toEqual([]);
    world.hold = undefined;
    await world.reconcile();
    expect(world.calls).toContain("start");
  });
});

describe("a start", () => {
  test("makes image, disk and tap before QEMU, and is one write", async () => {
    await world.reconcile();
    await world.clock.advance(20_000);
    expect(world.calls).toEqual(["prepare", "image", "volume from image", "tap", "start", "tap"]);
    expect(world.written).toEqual([
      {
        state: "Running",
        claimUid: "claim-1",
        pid: 4711,
        startedAt: at(0),
        accelerator: "TCG",
        machineType: "pc-q35-10.0",
        cpuModel: "qemu64",
        firmware: "SeaBIOS",
        qemuVersion: "10.0.13",
        runtimeVersion: "r1",
        agentConnected: false,
        image: { ready: true },
        disks: { ready: true },
        nics: [{ name: "eth0", tap, installed: true }],
      },
    ]);
  });

  test("hands QEMU what the spec and the status say", async () => {
    await world.reconcile();
    expect(world.driver.started[0]).toMatchObject({
      instanceUid: "uid-1",
      claimUid: "claim-1",
      cpus: 1,
      memoryBytes: 128 * 1024 ** 2,
      identity: { uid: 64_001, gid: 64_001 },
      disks: [{ id: "root", pool: "default" }],
      nics: [{ id: "eth0", tap, mac: "52:54:00:00:00:01", mtu: 1442 }],
    });
  });

  test("makes every disk in its pool, empty but for the root disk, and hands them over in the spec's order", async () => {
    const disks = [
      { name: "log", pool: "slow", size: "2Gi" },
      { name: "data", pool: "default", size: "1Gi" },
    ];
    world.set({ disks });
    await world.reconcile();
    expect(world.volumes.map(({ disk, pool, sizeBytes, from }) => [disk, pool, sizeBytes, from !== undefined])).toEqual([
      ["root", "default", 1024 ** 3, true],
      ["log", "slow", 2 * 1024 ** 3, false],
      ["data", "default", 1024 ** 3, false],
    ]);
    expect(world.driver.started[0]?.disks.map(({ id, pool }) => [id, pool])).toEqual([
      ["root", "default"],
      ["log", "slow"],
      ["data", "default"],
    ]);
  });

  test("an image that takes longer is said after a second", async () => {
    const image = Promise.withResolvers<{ path: string; virtualSizeBytes: number }>();
    const begun = Promise.withResolvers<void>();
    world.image = () => {
      begun.resolve();
      return image.promise;
    };
    const done = world.reconcile();
    await begun.promise;
    await world.clock.advance(1_500);
    expect(world.written).toEqual([
      {
        state: "Preparing",
        claimUid: "claim-1",
        image: { ready: false, reason: "Fetching", message: "the image is being fetched" },
      },
    ]);
    image.resolve({ path: "/a", virtualSizeBytes: 1 });
    await done;
    expect(world.written).toHaveLength(2);
    expect(world.last()?.state).toBe("Running");
  });

  test("an image that cannot be had is said with its reason, tried again, and heals", async () => {
    world.image = () => Promise.reject(new UserError("ChecksumMismatch", "the file has another checksum"));
    const again = await world.reconcile();
    expect(world.last()).toMatchObject({
      state: "Preparing",
      reason: "ChecksumMismatch",
      image: { ready: false, reason: "ChecksumMismatch", message: "the file has another checksum" },
    });
    expect(world.calls).not.toContain("start");
    expect(await world.reconcile()).toBeGreaterThan(0);
    expect(world.calls.filter((call) => call === "image")).toHaveLength(1);
    world.image = () => Promise.resolve({ path: "/a", virtualSizeBytes: 1 });
    await world.clock.advance(again ?? 0);
    await world.reconcile();
    expect(world.last()).toMatchObject({ state: "Running", image: { ready: true } });
    expect(world.last()?.reason).toBeUndefined();
  });

  test("a full pool is said of the disks, and tried at once when told that it healed", async () => {
    world.volumeError = new UserError("PoolFull", "pool default is full");
    await world.reconcile();
    expect(world.last()).toMatchObject({ state: "Preparing", disks: { ready: false, reason: "PoolFull" } });
    world.volumeError = undefined;
    world.controller.retry(key);
    expect(world.queued).toEqual(["web"]);
    await world.reconcile();
    expect(world.last()).toMatchObject({ state: "Running", disks: { ready: true } });
  });

  test("QEMU that does not start has failed, with its words", async () => {
    world.driver.startError = new UserError("QemuFailed", "qemu: no such machine");
    await world.reconcile();
    expect(world.last()).toMatchObject({
      state: "Failed",
      reason: "QemuFailed",
      message: "qemu: no such machine",
      claimUid: "claim-1",
    });
  });

  test("is broken off when it is no longer wanted", async () => {
    const begun = Promise.withResolvers<void>();
    world.image = (signal) =>
      new Promise((_, reject) => {
        signal.addEventListener("abort", () => reject(new Error("aborted")), { once: true });
        begun.resolve();
      });
    const done = world.controller.reconcile(key, new AbortController().signal);
    await begun.promise;
    world.set({ power: "Stopped" });
    expect(await done).toEqual({ afterMs: 0 });
    await world.reconcile();
    expect(world.calls).toEqual(["prepare", "image", "remove taps"]);
    expect(world.last()).toMatchObject({ state: "Stopped", claimUid: "claim-1" });
  });

  test("is not broken off by a change that does not matter to it", async () => {
    const give = Promise.withResolvers<{ path: string; virtualSizeBytes: number }>();
    const begun = Promise.withResolvers<void>();
    world.image = () => {
      begun.resolve();
      return give.promise;
    };
    const done = world.reconcile();
    await begun.promise;
    world.set({}, { resourceVersion: "2", generation: 2 });
    give.resolve({ path: "/a", virtualSizeBytes: 1 });
    await done;
    expect(world.last()?.state).toBe("Running");
  });
});

describe("a guest that runs", () => {
  beforeEach(async () => {
    await world.reconcile();
    world.calls.length = 0;
  });

  test("is looked after without a write", async () => {
    await world.reconcile();
    await world.reconcile();
    expect(world.calls).toEqual(["tap", "tap"]);
    expect(world.written).toHaveLength(1);
  });

  test("is the same one for a new agent", async () => {
    const next = new World(root);
    next.driver.seen.set("uid-1", running({ guestAgentOpen: false, note: note({ startedAt: at(0) }) }));
    next.object = instance({ status: { ...world.object?.status, guest: world.last() ?? { state: "Failed" } } });
    await next.reconcile();
    await next.clock.advance(20_000);
    expect(next.calls).toEqual(["tap"]);
    expect(next.written).toEqual([]);
  });

  test("has not failed because its tap could not be looked after", async () => {
    world.tapError = new UserError("SwitchDown", "Open vSwitch does not answer");
    expect(await world.reconcile()).toBeGreaterThan(0);
    expect(world.last()?.state).toBe("Running");
  });

  test("says that its pool is gone, and that it is back", async () => {
    world.poolReady = false;
    await world.reconcile();
    await world.clock.advance(1_000);
    expect(world.last()).toMatchObject({ state: "Running", disks: { ready: false, reason: "PoolGone" } });
    world.poolReady = true;
    await world.reconcile();
    await world.clock.advance(1_000);
    expect(world.last()).toMatchObject({ state: "Running", disks: { ready: true } });
  });

  test("is stopped and said to be, before anybody may take its claim", async () => {
    world.set({ power: "Stopped" });
    await world.reconcile();
    expect(world.calls).toEqual(["stop clean", "remove taps"]);
    expect(world.last()).toMatchObject({ state: "Stopped", reason: "PowerOff", claimUid: "claim-1" });
    expect(world.last()?.pid).toBeUndefined();
  });

  test("is said to be stopped even if the switch does not answer", async () => {
    world.tapError = new UserError("SwitchDown", "Open vSwitch does not answer");
    world.set({ power: "Stopped" });
    expect(await world.reconcile()).toBe(10_000);
    expect(world.last()?.state).toBe("Stopped");
  });

  test("is restarted once for a new restartedAt", async () => {
    world.set({ restartedAt: "now" });
    await world.reconcile();
    await world.reconcile();
    expect(world.calls.filter((call) => call === "stop clean" || call === "start")).toEqual(["stop clean", "start"]);
    await world.clock.advance(2_000);
    expect(world.last()).toMatchObject({ state: "Running", restartedAt: "now" });
    expect(world.last()?.restarts).toBeUndefined();
  });

  test("that crashes is said to have, and started again with a count", async () => {
    world.driver.seen.set("uid-1", exited({ at: at(0), message: "QEMU was killed" }, { startedAt: at(-60_000) }));
    expect(await world.reconcile()).toBe(5_000);
    expect(world.last()).toMatchObject({ state: "Failed", reason: "Crashed", claimUid: "claim-1" });
    await world.clock.advance(5_000);
    await world.reconcile();
    await world.clock.advance(2_000);
    expect(world.last()).toMatchObject({ state: "Running", restarts: 1 });
  });

  test("whose claim is being deleted is shut down in its grace period, and that is said", async () => {
    world.claimStates.set("claim-1", { state: "deleting", endsAt: NOW + 60_000 });
    world.holdersLeft = true;
    expect(await world.reconcile()).toBe(3_000);
    expect(world.calls).toEqual(["stop clean", "remove taps"]);
    expect(world.last()).toMatchObject({ state: "Stopped", reason: "ClaimLost", claimUid: "claim-1" });
  });

  test("deleted: everything goes, in order, then it is said", async () => {
    world.set({}, { deletionTimestamp: at(0) });
    await world.reconcile();
    expect(world.calls).toEqual(["stop clean", "remove taps", "remove volumes", "forget"]);
    expect(world.last()).toEqual({ state: "Released", claimUid: "claim-1" });
    await world.reconcile();
    expect(world.written.filter(({ state }) => state === "Released")).toHaveLength(1);
  });

  test("deleted while the switch does not answer: it is not said before it is true", async () => {
    world.tapError = new UserError("SwitchDown", "Open vSwitch does not answer");
    world.set({}, { deletionTimestamp: at(0) });
    await world.reconcile();
    await world.clock.advance(2_000);
    expect(world.last()).toMatchObject({ state: "Stopping", reason: "ReleaseFailed" });
    expect(world.calls).not.toContain("remove volumes");
    world.tapError = undefined;
    await world.reconcile();
    expect(world.last()?.state).toBe("Released");
  });

  test("that vanished from the cache is not touched", async () => {
    world.object = undefined;
    await world.reconcile();
    expect(world.calls).toEqual([]);
    expect(world.driver.listeners.size).toBe(0);
  });

  test("that vanished, its claim being deleted: left to the search for lost ones, and its holder is looked at until it has ended", async () => {
    world.object = undefined;
    world.claimStates.set("claim-1", { state: "deleting", endsAt: NOW + 3600_000 });
    world.holdersLeft = true;
    expect(await world.reconcile()).toBe(3_000);
    expect(world.calls).toEqual([]);
    world.holdersLeft = false;
    expect(await world.reconcile()).toBeUndefined();
  });
});
