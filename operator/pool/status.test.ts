import { describe, expect, it } from "vitest";
import type { HostPool } from "../../crds/host.ts";
import { API_VERSION } from "../../crds/names.ts";
import type { StoragePool } from "../../crds/pool.ts";
import { GIB } from "../../crds/quantity.ts";
import { computePoolStatus, type NodePool } from "./status.ts";

const NOW = new Date("2026-01-01T00:01:00Z");

const poolFixture = (more: Partial<StoragePool["metadata"]> = {}, labels?: Record<string, string>): StoragePool => ({
  apiVersion: API_VERSION,
  kind: "StoragePool",
  metadata: { name: "local", uid: "u", resourceVersion: "1", generation: 3, creationTimestamp: "2026-01-01T00:00:00Z", ...more },
  spec: { driver: "btrfs", source: { loop: {} }, ...(labels === undefined ? {} : { nodeSelector: { matchLabels: labels } }) },
});

const on = (node: string, pool: Partial<HostPool> = {}): NodePool => ({
  node,
  pool: { name: "local", ready: true, sizeBytes: 8 * GIB, usedBytes: GIB, ...pool },
});
const full = { ready: false, reason: "NoSpace", message: "/var/lib has 1Gi left, the pool needs 8Gi" };
const tight = { ready: true, reason: "NotEnoughSpace", message: "it stays at 8Gi: /var/lib has 1Gi left" };
const gone = { deletionTimestamp: "2026-01-01T00:00:30Z" };

describe("computePoolStatus", () => {
  it.each<[string, StoragePool, NodePool[], string[], string]>([
    ["just made", poolFixture(), [], [], "0 0 0/0 False NoNodes: no node has it yet: the nodes' agents are about to make it"],
    [
      "selects no node",
      poolFixture({}, { disk: "nvme" }),
      [],
      [],
      "0 0 0/0 False NoNodes: no node has it: no node with Drover's agent has the labels of spec.nodeSelector",
    ],
    ["one node", poolFixture(), [on("n1")], ["a/b"], "8Gi 1Gi 1/1 True Ready: ready on its node"],
    ["all nodes", poolFixture(), [on("n1"), on("n2"), on("n3")], [], "24Gi 3Gi 3/3 True Ready: ready on all 3 nodes"],
    [
      "serves, but cannot grow",
      poolFixture(),
      [on("n1", tight)],
      [],
      "8Gi 1Gi 1/1 True NotEnoughSpace: ready on its node; but node n1: it stays at 8Gi: /var/lib has 1Gi left",
    ],
    [
      "two serve, but cannot grow",
      poolFixture(),
      [on("n3"), on("n2", { ready: true, reason: "ShrinkRefused" }), on("n1", tight)],
      [],
      "24Gi 3Gi 3/3 True NotEnoughSpace: ready on all 3 nodes; but node n1: it stays at 8Gi: /var/lib has 1Gi left (and 1 more)",
    ],
    [
      "one fails, another cannot grow",
      poolFixture(),
      [on("n1", tight), on("n2", full)],
      [],
      "16Gi 2Gi 1/2 False NoSpace: node n2: /var/lib has 1Gi left, the pool needs 8Gi",
    ],
    [
      "a node fails, in its own words",
      poolFixture(),
      [on("n3"), on("n2", { ...full, sizeBytes: undefined, usedBytes: undefined }), on("n1")],
      [],
      "16Gi 2Gi 2/3 False NoSpace: node n2: /var/lib has 1Gi left, the pool needs 8Gi",
    ],
    [
      "two fail",
      poolFixture(),
      [on("n2", full), on("n1", { ready: false })],
      [],
      "16Gi 2Gi 0/2 False NotReady: node n1: the pool is not ready yet (and 1 more)",
    ],
    [
      "a node is silent",
      poolFixture(),
      [on("n1"), { ...on("n2"), silent: { reason: "NodeNotReady", message: "node n2 is not ready" } }],
      [],
      "16Gi 2Gi 1/2 False NodeNotReady: node n2 is not ready",
    ],
    [
      "deleted while used",
      poolFixture(gone),
      [on("n1")],
      ["b/6", "a/1", "a/2", "a/3", "a/4", "a/5", "b/7"],
      "8Gi 1Gi 1/1 False InUse: it is used by the instances a/1, a/2, a/3, a/4, a/5 and 2 more; delete them first",
    ],
    [
      "deleted while one uses it",
      poolFixture(gone),
      [on("n1")],
      ["a/1"],
      "8Gi 1Gi 1/1 False InUse: it is used by the instance a/1; delete them first",
    ],
    [
      "deleted, being taken down",
      poolFixture(gone),
      [on("n1")],
      [],
      "8Gi 1Gi 1/1 False Deleting: waiting for n1 to take it down",
    ],
    [
      "deleted, a node cannot",
      poolFixture(gone),
      [on("n1", full)],
      [],
      "8Gi 1Gi 0/1 False Deleting: waiting for n1 to take it down (node n1: /var/lib has 1Gi left, the pool needs 8Gi)",
    ],
  ])("%s", (_, pool, nodes, users, expected) => {
    const { size, used, nodes: count, conditions } = computePoolStatus({ pool, nodes, hasAgents: true, users, now: NOW });
    const ready = conditions?.[0];
    expect(`${size} ${used} ${count} ${ready?.status} ${ready?.reason}: ${ready?.message}`).toBe(expected);
    expect(ready?.observedGeneration).toBe(3);
  });

  it("says that no agent runs anywhere", () => {
    const { conditions } = computePoolStatus({ pool: poolFixture(), nodes: [], hasAgents: false, users: [], now: NOW });
    expect(conditions?.[0]?.message).toBe("no node has it: no node runs Drover's agent yet");
  });

  it("is the same for nodes in another order, and keeps the time of what did not change", () => {
    const pool = poolFixture();
    const first = computePoolStatus({ pool, nodes: [on("n1"), on("n2", full)], hasAgents: true, users: [], now: NOW });
    const later = {
      pool: { ...pool, status: first },
      nodes: [on("n2", full), on("n1")],
      hasAgents: true,
      users: [],
      now: new Date("2027-01-01"),
    };
    expect(computePoolStatus(later)).toEqual(first);
  });
});

describe("computePoolStatus of a pool that nodes share", () => {
  const pool = poolFixture();
  pool.spec = { driver: "dir", shared: true, source: { path: "/srv/common" } };
  const nodes = [on("n2", { directory: "b", usedBytes: 2 * GIB }), on("n1", { directory: "a" })];
  it("counts its bytes once, and keeps to the directory that came first", () => {
    expect(computePoolStatus({ pool, nodes, hasAgents: true, users: [], now: NOW })).toMatchObject({
      size: "8Gi",
      used: "2Gi",
      directory: "a",
      nodes: "2/2",
    });
    pool.status = { directory: "b" };
    expect(computePoolStatus({ pool, nodes, hasAgents: true, users: [], now: NOW }).directory).toBe("b");
  });
});
