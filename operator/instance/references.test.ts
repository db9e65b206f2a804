import { describe, expect, it } from "vitest";
import { API_VERSION } from "../../crds/names.ts";
import type { StoragePool } from "../../crds/pool.ts";
import { poolProblem, unpublished } from "./references.ts";

const pool = (name: string, deletionTimestamp?: string): StoragePool => ({
  apiVersion: API_VERSION,
  kind: "StoragePool",
  metadata: { name, uid: name, resourceVersion: "1", generation: 1, creationTimestamp: "", deletionTimestamp },
  spec: { driver: "btrfs", source: { loop: {} } },
});
const cache = (...pools: StoragePool[]) => ({
  get: ({ name }: { name: string }) => pools.find(({ metadata }) => metadata.name === name),
  list: () => pools,
});

describe("poolProblem", () => {
  it.each<[string, ReturnType<typeof cache>, string | undefined]>([
    ["known", cache(pool("local")), undefined],
    [
      "none at all",
      cache(),
      "PoolNotFound: spec.rootDisk.pool: there is no StoragePool local; make it (there is none at all yet)",
    ],
    [
      "another",
      cache(pool("b"), pool("a")),
      "PoolNotFound: spec.rootDisk.pool: there is no StoragePool local; make it (known are a, b)",
    ],
    [
      "many others",
      cache(...["a", "b", "c", "d", "e", "f", "g"].map((name) => pool(name))),
      "PoolNotFound: spec.rootDisk.pool: there is no StoragePool local; make it (known are a, b, c, d, e, and 2 more)",
    ],
    [
      "going",
      cache(pool("local", "2026-01-01T00:00:00Z")),
      "PoolDeleting: StoragePool local is being deleted; make it again when it is gone, or use another one",
    ],
  ])("%s", (_, pools, expected) => {
    const problem = poolProblem({ name: "root", pool: "local" }, pools);
    expect(problem && `${problem.reason}: ${problem.message}`).toBe(expected);
  });
});

describe("poolProblem of a data disk", () => {
  it("names it as the spec does", () => {
    const problem = poolProblem({ name: "data", pool: "big" }, cache(pool("local")));
    expect(problem?.message).toBe("spec.disks[data].pool: there is no StoragePool big; make it (known are local)");
  });
});

describe("unpublished", () => {
  const saying = (status: "True" | "False", message: string) =>
    cache({
      ...pool("local"),
      status: { conditions: [{ type: "Ready", status, reason: "R", message, lastTransitionTime: "" }] },
    });
  it.each<[string, ReturnType<typeof cache>, string]>([
    ["nothing was said of it", cache(pool("local")), "it was just made"],
    ["no node has it", saying("False", "no node has it: no labels"), "no node has it: no labels"],
    [
      "it is ready",
      saying("True", "ready on its node"),
      "it is ready, and its nodes will say within seconds how much they have; if they do not, it is full",
    ],
  ])("%s", (_, pools, why) => {
    const message = `waiting for a node that offers room in StoragePool local: ${why}`;
    expect(unpublished("local", pools)).toEqual({ reason: "WaitingForPool", message });
  });
});
