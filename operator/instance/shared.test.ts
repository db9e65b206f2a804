import { describe, expect, it } from "vitest";
import { API_VERSION } from "../../crds/names.ts";
import type { StoragePool } from "../../crds/pool.ts";
import { instanceFixture } from "./fixtures.ts";
import { isUnbound, labelsOfPools } from "./shared.ts";

const pool = (name: string, shared: boolean, matchLabels = {}): StoragePool => ({
  apiVersion: API_VERSION,
  kind: "StoragePool",
  metadata: { name, uid: name, resourceVersion: "1", generation: 1, creationTimestamp: "" },
  spec: { driver: "dir", shared, source: { path: "/srv" }, nodeSelector: { matchLabels } },
});
const all = [pool("local", true, { nfs: "a" }), pool("other", true, { nfs: "a", zone: "1" }), pool("own", false)];
const pools = { get: ({ name }: { name: string }) => all.find(({ metadata }) => metadata.name === name) };
const disk = (name: string) => ({ name: `in-${name}`, pool: name, size: "1Gi" });

describe("isUnbound", () => {
  it.each<[string, string[], boolean]>([
    ["all its disks are shared", ["other"], true],
    ["one of them is not", ["other", "own"], false],
    ["one lies in a pool that is not known", ["gone"], false],
  ])("%s", (_, names, expected) => {
    expect(isUnbound(instanceFixture({ spec: { disks: names.map(disk) } }), pools)).toBe(expected);
  });
});

it("labelsOfPools are those of all the pools", () => {
  expect(labelsOfPools(["local", "other", "own"], pools)).toEqual([
    ["nfs", "a"],
    ["nfs", "a"],
    ["zone", "1"],
  ]);
});
