import { describe, expect, it } from "vitest";
import type { Instance } from "../../crds/instance.ts";
import { resources, silentLogger, type KubeClient, type Node, type ObjectKey, type Pod } from "../../kube/index.ts";
import { instanceFixture, UID } from "./fixtures.ts";
import { releaseOrphan, type OrphanContext } from "./orphans.ts";

const KEY = { namespace: "team-a", name: "drover-web-abcde" };
const OTHER = "another-uid";

const claim = (more: { node?: string; deleting?: boolean; owner?: string } = {}): Pod => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: {
    ...KEY,
    uid: "claim-uid",
    ...(more.deleting === true ? { deletionTimestamp: "2026-01-01T01:00:00Z" } : {}),
    ownerReferences: [
      { apiVersion: "drover.dev/v1alpha1", kind: more.owner ?? "Instance", name: "web", uid: UID, controller: true },
    ],
  },
  spec: { containers: [], nodeName: more.node ?? "n1" },
});

const node = (ready: boolean): Node => ({
  apiVersion: "v1",
  kind: "Node",
  metadata: { name: "n1" },
  spec: {},
  status: { conditions: [{ type: "Ready", status: ready ? "True" : "Unknown" }] },
});

interface World {
  pod?: Pod;
  cached?: Instance[];
  /** What the API server says when it is asked. */
  living?: Instance[] | Error;
  node?: Node;
  /** Of the node, from the API server. */
  livingNode?: Node;
  agentSilent?: boolean;
}

/** What was deleted, and which events were told. */
async function look(world: World, ending = new Set<string>()) {
  const { pod, cached = [], living = [] } = world;
  const done: string[] = [];
  const client = {
    list: async () => {
      if (living instanceof Error) throw living;
      return living;
    },
    get: async () => world.livingNode,
    delete: async (type: { plural: string }, key: ObjectKey, options: object = {}) => {
      done.push(`${type.plural} ${key.name} ${JSON.stringify(options)}`);
      return true;
    },
  } as unknown as KubeClient;
  const ctx = {
    client,
    claims: { get: () => pod },
    instances: { get: () => cached[0] },
    nodes: { get: () => world.node, hasSynced: true },
    heartbeats: { silence: () => (world.agentSilent === true ? { periodMs: 60_000 } : undefined), isBack: () => true },
    budgets: { get: () => ({}) },
    claimCounts: { of: () => 0 },
    events: { event: (_: unknown, type: string, reason: string) => done.push(`${type} ${reason}`) },
    log: silentLogger,
    ending,
  } as unknown as OrphanContext;
  await releaseOrphan(KEY, ctx);
  return done;
}

const ours = instanceFixture();
const namesake = instanceFixture({ metadata: { uid: OTHER } });
const LET_GO = [`${resources.pods.plural} ${KEY.name} {"uid":"claim-uid"}`, "Warning InstanceVanished"];

describe("releaseOrphan", () => {
  it.each<[string, World, string[]]>([
    ["its instance is there", { pod: claim(), cached: [ours], node: node(true) }, []],
    ["the cache is empty, the API server has it", { pod: claim(), living: [ours], node: node(true) }, []],
    ["the cache has another one of that name, the API server ours", { pod: claim(), cached: [namesake], living: [ours] }, []],
    ["its instance is gone", { pod: claim(), node: node(true) }, LET_GO],
    ["another one has its name", { pod: claim(), cached: [namesake], living: [namesake], node: node(true) }, LET_GO],
    ["it is being deleted already", { pod: claim({ deleting: true }), node: node(true) }, []],
    ["it is somebody else's", { pod: claim({ owner: "Job" }), node: node(true) }, []],
    ["its node is silent: nobody could shut the guest down", { pod: claim(), node: node(false) }, []],
    ["its agent is silent", { pod: claim(), node: node(true), agentSilent: true }, []],
    ["its node is not in the cache, but there", { pod: claim(), livingNode: node(true) }, []],
    [
      "its node is gone for good",
      { pod: claim() },
      [`${resources.pods.plural} ${KEY.name} {"uid":"claim-uid","gracePeriodSeconds":0}`, "Warning InstanceVanished"],
    ],
  ])("%s", async (_, world, expected) => {
    expect(await look(world)).toEqual(expected);
  });

  it("does nothing when the API server cannot be asked", async () => {
    const world = { pod: claim(), node: node(true), living: new Error("no connection") };
    await expect(look(world)).rejects.toThrow("no connection");
  });

  it("takes the namespace's budget away after the last one, and only after one that it let go", async () => {
    const ending = new Set<string>();
    expect(await look({}, ending)).toEqual([]);
    await look({ pod: claim(), node: node(true) }, ending);
    expect(await look({}, ending)).toEqual(["poddisruptionbudgets drover-claims {}"]);
    expect(await look({}, ending)).toEqual([]);
  });
});
