import { describe, expect, it } from "vitest";
import type { Instance, InstanceStatus } from "../../crds/instance.ts";
import { capacityPatch, elsewhereGib, poolCapacity, unclaimedGib } from "./capacity.ts";

const GIB = 1024 ** 3;
const pool = { name: "local", ready: true, sizeBytes: 8 * GIB };

const instance = (size: string, status: Partial<InstanceStatus>): Instance =>
  ({ spec: { rootDisk: { pool: "local", size } }, status }) as Instance;

describe("unclaimedGib", () => {
  it("counts disks that lie here without a claim, in whole GiB each", () => {
    const claim = { name: "c", serial: 1, uid: "u" };
    const all = [
      instance("1536Mi", { nodeName: "n1" }),
      instance("3Gi", { nodeName: "n1" }),
      instance("9Gi", { nodeName: "n1", claim }),
      instance("1Gi", { nodeName: "n1", claim: { ...claim, serial: 2 } }),
      instance("9Gi", { nodeName: "n2" }),
      instance("9Gi", {}),
      instance("9Gi", { nodeName: "n1", guest: { state: "Released" } }),
    ];
    expect([...unclaimedGib(all, "n1")]).toEqual([["local", 6]]);
  });
});

describe("unclaimedGib of several disks", () => {
  const spec = {
    rootDisk: { pool: "local", size: "2Gi" },
    disks: [
      { name: "data", pool: "big", size: "3Gi" },
      { name: "log", pool: "big", size: "1Mi" },
    ],
  };
  const on = (status: Partial<InstanceStatus>) => ({ spec, status: { nodeName: "n1", ...status } }) as Instance;

  it("counts each in its own pool", () =>
    expect([...unclaimedGib([on({})], "n1")]).toEqual([
      ["local", 2],
      ["big", 4],
    ]));
  it("counts one that was moved to another pool there", () =>
    expect([...unclaimedGib([on({ disks: [{ name: "log", pool: "local" }] })], "n1")]).toEqual([
      ["local", 3],
      ["big", 3],
    ]));
});

describe("poolCapacity", () => {
  it.each([
    ["an empty pool", { pool, imagesBytes: 0, unclaimedGib: 0 }, "8"],
    ["less images, rounded up", { pool, imagesBytes: 5, unclaimedGib: 0 }, "7"],
    ["less disks without a claim", { pool, imagesBytes: GIB, unclaimedGib: 4 }, "3"],
    ["never less than nothing", { pool, imagesBytes: GIB, unclaimedGib: 40 }, "0"],
    ["rounded down", { pool: { ...pool, sizeBytes: 8 * GIB - 1 }, imagesBytes: 0, unclaimedGib: 0 }, "7"],
    ["not mounted", { pool: { name: "local", ready: false, reason: "PoolGone" }, imagesBytes: 0, unclaimedGib: 0 }, "0"],
    ["full, but there", { pool: { ...pool, ready: false, reason: "PoolFull" }, imagesBytes: 0, unclaimedGib: 0 }, "8"],
  ])("%s", (_, use, gib) => expect([...poolCapacity([use])]).toEqual([["drover.dev/pool.local", gib]]));
});

describe("capacityPatch", () => {
  const want = new Map([["drover.dev/pool.local", "7"]]);
  it.each([
    ["missing", { cpu: "4" }, [{ op: "add", path: "/status/capacity/drover.dev~1pool.local", value: "7" }]],
    ["different", { "drover.dev/pool.local": "8" }, [{ op: "add", path: "/status/capacity/drover.dev~1pool.local", value: "7" }]],
    ["the same", { cpu: "4", "drover.dev/pool.local": "7" }, []],
    [
      "a pool that is gone, and what is not ours",
      { "drover.dev/pool.local": "7", "drover.dev/pool.old": "1", "drover.dev/vf.x": "2", "example.com/pool.x": "3" },
      [{ op: "remove", path: "/status/capacity/drover.dev~1pool.old" }],
    ],
  ])("%s", (_, have, patch) => expect(capacityPatch(have, want, true)).toEqual(patch));

  it("takes nothing off before all pools were looked at", () =>
    expect(capacityPatch({ "drover.dev/pool.x": "3" }, new Map(), false)).toEqual([]));
});

describe("elsewhereGib", () => {
  const claim = { name: "c", serial: 1, uid: "u", node: "n1" };
  const named = (uid: string, status: Partial<InstanceStatus>): Instance =>
    ({ ...instance("1Gi", status), metadata: { uid } }) as Instance;
  const volumes = new Map([
    ["here", 2 * GIB],
    ["again", 3 * GIB],
    ["there", 5 * GIB],
    ["unknown", 7 * GIB],
  ]);
  it("is all that no claim on this node asks the room for", () => {
    const all = [
      named("here", { nodeName: "n1", claim }),
      named("again", { nodeName: "n1", claim: { ...claim, serial: 2, countsDisks: true } }),
      named("there", { nodeName: "n2", claim: { ...claim, node: "n2" } }),
    ];
    expect(elsewhereGib(volumes, all, "n1")).toBe(15);
    expect(elsewhereGib(volumes, all, "n2")).toBe(12);
    expect(elsewhereGib(volumes, [], "n3")).toBe(17);
  });
});
