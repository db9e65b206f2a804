import { describe, expect, it } from "vitest";
import { disksOf, fieldOfDisk, poolsOf } from "./disks.ts";
import type { Instance } from "./instance.ts";

const spec = {
  rootDisk: { pool: "fast", size: "1Gi" },
  disks: [
    { name: "log", pool: "slow", size: "1Mi" },
    { name: "data", pool: "fast", size: "2Gi" },
  ],
} as Instance["spec"];
const shown = (instance: Pick<Instance, "spec" | "status">) => disksOf(instance).map(({ name, pool }) => `${name} ${pool}`);

describe("disksOf", () => {
  it("has the root disk first, then the others in the spec's order", () => {
    expect(shown({ spec })).toEqual(["root fast", "log slow", "data fast"]);
    expect(disksOf({ spec }).map(({ sizeBytes }) => sizeBytes)).toEqual([1024 ** 3, 1024 ** 2, 2 * 1024 ** 3]);
  });
  it("says where a move has put them", () => {
    const disks = [
      { name: "data", pool: "new" },
      { name: "root", pool: "other" },
    ];
    expect(shown({ spec, status: { disks } })).toEqual(["root other", "log slow", "data new"]);
  });
});

describe("poolsOf", () => {
  it("names each pool once", () => expect(poolsOf({ spec })).toEqual(["fast", "slow"]));
});

describe("fieldOfDisk", () => {
  it.each([
    ["root", "rootDisk"],
    ["data", "disks[data]"],
  ])("%s", (name, field) => expect(fieldOfDisk(name)).toBe(field));
});
