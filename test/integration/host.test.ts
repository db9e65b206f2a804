/** A node's Host, heartbeat and pool GiB: real pools against a real API server. Needs root. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Host } from "../../crds/host.ts";
import { API_VERSION } from "../../crds/names.ts";
import { hosts, instances } from "../../crds/resources.ts";
import { Informer, KubeClient, realClock, resources, silentLogger, type Lease, type Node } from "../../kube/index.ts";
import { NodeHost, type HostFacts } from "../../node-agent/host/index.ts";
import { nodePaths, type NodePaths } from "../../node-agent/node.ts";
import { Pools } from "../../node-agent/pool/index.ts";
import { instanceFixture } from "../../operator/instance/fixtures.ts";
import { NAMESPACE, makeNetwork, startCluster, until, writesOf, type Cluster } from "./operator-kit.ts";

const AGENT = "drover-agent-test";
const facts: HostFacts = {
  accelerator: "TCG",
  qemuVersion: "10.0.2",
  runtimeVersion: "1",
  machineTypes: ["pc-q35-10.0"],
  cpuModel: "qemu64-v1",
};

let cluster: Cluster;
let client: KubeClient;
let root: string;
let paths: NodePaths;
let seenHosts: Informer<Host>;
let seenNodes: Informer<Node>;
let seenLeases: Informer<Lease>;
const ended = new AbortController();

/** An agent's part of this: its informers, its pools, its NodeHost. */
async function startAgent() {
  const stop = new AbortController();
  const mine = KubeClient.fromKubeconfig(await readFile(cluster.plane.kubeconfig, "utf8"), { userAgent: AGENT });
  const nodes = new Informer(mine, resources.nodes, { fieldSelector: "metadata.name=n1" });
  const own = new Informer(mine, hosts, { fieldSelector: "metadata.name=n1" });
  const here = new Informer(mine, instances, { fieldSelector: "status.nodeName=n1" });
  for (const one of [nodes, own, here]) one.start(stop.signal);
  const pools = new Pools({ nodeName: "n1", log: silentLogger, paths });
  const host = new NodeHost({
    client: mine,
    nodeName: "n1",
    namespace: "drover-system",
    bootId: "boot-1",
    looked: Promise.resolve(),
    identity: "agent-1",
    clock: realClock,
    log: silentLogger,
    nodes,
    hosts: own,
    instances: here,
    pools,
    poolNames: () => ["local"],
    probe: async () => facts,
    ovsDatapath: () => "userspace",
  });
  const running = host.run(stop.signal);
  const ensure = async (size: string) => {
    const answer = await pools.ensure({ metadata: { name: "local" }, spec: { driver: "btrfs", source: { loop: { size } } } });
    host.poolLooked("local");
    return answer;
  };
  const end = async (): Promise<void> => {
    stop.abort();
    await Promise.all([running, nodes.stopped(), own.stopped(), here.stopped()]);
  };
  return { pools, host, ensure, end };
}

const capacity = (): string | undefined => seenNodes.get({ name: "n1" })?.status?.capacity?.["drover.dev/pool.local"];
const poolOf = () => seenHosts.get({ name: "n1" })?.status?.pools?.find(({ name }) => name === "local");

beforeAll(async () => {
  process.env["DROVER_NODE_PID"] = String(process.pid);
  root = await mkdtemp(join(tmpdir(), "drover-host-"));
  paths = nodePaths(join(root, "drover"));
  cluster = await startCluster();
  client = cluster.client;
  await client.create(resources.nodes, { apiVersion: "v1", kind: "Node", metadata: { name: "n1" } });
  await client.patchMerge<Node>(
    resources.nodes,
    { name: "n1" },
    { status: { capacity: { cpu: "4" } } },
    { subresource: "status" },
  );
  seenHosts = new Informer(client, hosts);
  seenNodes = new Informer(client, resources.nodes);
  seenLeases = new Informer(client, resources.leases, { namespace: "drover-system" });
  for (const one of [seenHosts, seenNodes, seenLeases]) one.start(ended.signal);
  await Promise.all([seenHosts.synced, seenNodes.synced, seenLeases.synced]);
});

afterAll(async () => {
  ended.abort();
  await Promise.all([seenHosts?.stopped(), seenNodes?.stopped(), seenLeases?.stopped()]);
  await cluster?.stop();
  await rm(root, { recursive: true, force: true });
  delete process.env["DROVER_NODE_PID"];
});

describe("a node", () => {
  it("tells what it can do, advertises its pool's GiB, and gives a sign of life, in a handful of writes", async () => {
    const agent = await startAgent();
    expect(await agent.ensure("2Gi")).toMatchObject({ ready: true });
    await until("the Host", seenHosts, () => poolOf()?.ready);
    await until("GiB on the Node", seenNodes, () => capacity() === "2");
    const lease = await until("the Lease", seenLeases, () =>
      seenLeases.get({ namespace: "drover-system", name: "drover-agent-n1" }),
    );
    expect(lease.spec).toMatchObject({ holderIdentity: "agent-1", leaseDurationSeconds: 60 });
    const host = seenHosts.get({ name: "n1" });
    expect(host?.status).toMatchObject({ ...facts, ovsDatapath: "userspace", poolNames: "local", instances: 0 });
    expect(host?.status?.conditions).toMatchObject([{ type: "Ready", status: "True", message: "instances run here with TCG" }]);
    const uid = seenNodes.get({ name: "n1" })?.metadata.uid;
    expect(host?.metadata.ownerReferences).toMatchObject([{ kind: "Node", name: "n1", uid }]);
    // A Host that is written before the pool is ready is one write more.
    expect((await writesOf(cluster, AGENT, /n1$/)).length).toBeLessThanOrEqual(6);
    await agent.end();
  });

  it("writes nothing but its heartbeat when the agent is replaced", async () => {
    const before = (await writesOf(cluster, AGENT, /n1$/)).filter((write) => !write.includes("leases")).length;
    const agent = await startAgent();
    await agent.ensure("2Gi");
    // Nothing tells that nothing will be written; what is to be written is written within a second.
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    const after = (await writesOf(cluster, AGENT, /n1$/)).filter((write) => !write.includes("leases"));
    expect(after.slice(before)).toEqual([]);
    await agent.end();
  });

  it("advertises again what was taken away, follows growth and disks without a claim, and writes a deleted Host anew", async () => {
    const agent = await startAgent();
    await agent.ensure("2Gi");
    await client.patchJson(resources.nodes, { name: "n1" }, [{ op: "remove", path: "/status/capacity/drover.dev~1pool.local" }], {
      subresource: "status",
    });
    await until("GiB are back", seenNodes, () => capacity() === "2");
    expect(await agent.ensure("4Gi")).toMatchObject({ ready: true });
    await until("the growth is advertised", seenNodes, () => capacity() === "4");
    await until("the growth is told", seenHosts, () => poolOf()?.sizeBytes === 4 * 1024 ** 3);

    await makeNetwork(client, "blue");
    const { spec } = instanceFixture();
    await client.create(instances, {
      apiVersion: API_VERSION,
      kind: "Instance",
      metadata: { name: "stopped", namespace: NAMESPACE },
      spec: { ...spec, power: "Stopped", rootDisk: { pool: "local", size: "1536Mi" } },
    });
    await client.patchMerge(
      instances,
      { namespace: NAMESPACE, name: "stopped" },
      { status: { nodeName: "n1" } },
      { subresource: "status" },
    );
    await until("its disk is taken off", seenNodes, () => capacity() === "2");
    await client.delete(instances, { namespace: NAMESPACE, name: "stopped" });
    await until("its disk is free again", seenNodes, () => capacity() === "4");

    await client.delete(hosts, { name: "n1" });
    await until("the Host is there again", seenHosts, () => poolOf()?.ready);

    expect(await agent.pools.remove("local")).toBe("gone");
    agent.host.poolLooked("local");
    await until(
      "the GiB are gone with the pool",
      seenNodes,
      () => seenNodes.get({ name: "n1" })?.status?.capacity?.["cpu"] === "4" && capacity() === undefined,
    );
    await until(
      "the Host has no pool",
      seenHosts,
      () => seenHosts.get({ name: "n1" })?.status?.poolNames === "" && poolOf() === undefined,
    );
    await agent.end();
  });
});
