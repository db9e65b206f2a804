/** Instances against a real API server and a real scheduler. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CLAIMS_BUDGET, INSTANCE_FINALIZER, claimName } from "../../crds/names.ts";
import type { Instance, InstanceSpec } from "../../crds/instance.ts";
import { instances } from "../../crds/resources.ts";
import { Informer, resources, type Node } from "../../kube/index.ts";
import { instanceFixture } from "../../operator/instance/fixtures.ts";
import {
  NAMESPACE,
  NetworkStandIn,
  NodeStandIn,
  agentBeats,
  agentForgotten,
  hostSays,
  makeNetwork,
  makeNode,
  makePool,
  nodeReady,
  offerRoom,
  startCluster,
  startOperator,
  until,
  writesOf,
  type Cluster,
  type RunningOperator,
} from "./operator-kit.ts";

let cluster: Cluster;
let nodes: NodeStandIn;
let network: NetworkStandIn;
let operator: RunningOperator | undefined;

beforeAll(async () => {
  cluster = await startCluster();
  await makePool(cluster.client, "local");
  await makeNode(cluster.client, "n1", "local", 100);
  await makeNetwork(cluster.client, "blue");
  nodes = new NodeStandIn(cluster);
  network = new NetworkStandIn();
});

afterAll(async () => {
  await operator?.stop();
  await nodes?.stop();
  await cluster?.stop();
});

const keyFor = (name: string) => ({ namespace: NAMESPACE, name });

async function apply(name: string, spec: Partial<InstanceSpec> = {}): Promise<Instance> {
  const { apiVersion, kind, spec: whole } = instanceFixture({ spec });
  return cluster.client.create(instances, { apiVersion, kind, metadata: keyFor(name), spec: whole });
}

const power = (name: string, value: InstanceSpec["power"]) =>
  cluster.client.patchMerge<Instance>(instances, keyFor(name), { spec: { power: value } });

const remove = (name: string) => cluster.client.delete(instances, keyFor(name));

const statusOf = (name: string) => cluster.seenInstances.get(keyFor(name))?.status;
const ready = (name: string) => statusOf(name)?.conditions?.find(({ type }) => type === "Ready");
const claimsOf = (name: string) => cluster.seenPods.list().filter((pod) => pod.metadata.ownerReferences?.[0]?.name === name);

const phase = (name: string, want: string, reason?: string) =>
  until(`${name} is ${want} ${reason ?? ""}`, cluster.seenInstances, () => {
    const status = statusOf(name);
    return status?.phase === want && (reason === undefined || status.reason === reason) ? status : undefined;
  });
const isReady = (name: string) => until(`${name} is Ready`, cluster.seenInstances, () => ready(name)?.status === "True");
const isGone = (name: string) =>
  until(`${name} is gone`, cluster.seenInstances, () => cluster.seenInstances.get(keyFor(name)) === undefined);

describe("an instance", () => {
  beforeAll(async () => {
    operator = await startOperator(cluster, network);
  });
  afterAll(async () => {
    await operator?.stop();
    operator = undefined;
  });

  it("lives: apply, Running, Stopped, Running, deleted", async () => {
    const { metadata } = await apply("web");
    await isReady("web");
    const first = await phase("web", "Running");
    expect(first).toMatchObject({
      nodeName: "n1",
      ip: "10.10.0.2",
      claim: { serial: 1, node: "n1", name: claimName("web", metadata.uid, 1) },
    });
    expect(first.conditions?.map(({ type, status }) => `${type}=${status}`)).toEqual([
      "Scheduled=True",
      "ImageReady=True",
      "DisksReady=True",
      "NetworkReady=True",
      "Migratable=True",
      "RuntimeCurrent=Unknown",
      "Ready=True",
    ]);
    expect(network.ports.get(metadata.uid)).toBe("n1");
    const budget = await cluster.client.get(resources.podDisruptionBudgets, keyFor(CLAIMS_BUDGET));
    expect(budget?.spec?.minAvailable).toBe(1_000_000);

    await power("web", "Stopped");
    const stopped = await phase("web", "Stopped");
    expect(stopped.claim).toEqual({ serial: 2, name: claimName("web", metadata.uid, 2) });
    expect(stopped).toMatchObject({ nodeName: "n1", ip: "10.10.0.2" });
    await until("no claim is left", cluster.seenPods, () => claimsOf("web").length === 0);

    await power("web", "Running");
    await isReady("web");
    const again = await phase("web", "Running");
    expect(again).toMatchObject({ nodeName: "n1", ip: "10.10.0.2", claim: { serial: 2, node: "n1" } });
    const [claim] = claimsOf("web");
    expect(claim?.spec.containers[0]?.resources?.requests).not.toHaveProperty("drover.dev/pool.local");

    await remove("web");
    await isGone("web");
    expect(claimsOf("web")).toEqual([]);
    expect(network.ports.has(metadata.uid)).toBe(false);
    expect(await cluster.client.get(resources.podDisruptionBudgets, keyFor(CLAIMS_BUDGET))).toBeUndefined();
    expect(nodes.failures).toEqual([]);
  });

  it("costs five writes of the operator until it runs, and nothing while nothing changes", async () => {
    await apply("cheap");
    await isReady("cheap");
    // Its last event is written when it stops; another one then finds nothing to do.
    await operator?.stop();
    operator = await startOperator(cluster, network);
    // The claim and the event bear the instance's name in their own; an Event's name is given by the client.
    const writes = await writesOf(cluster, "drover-operator", /^(drover-)?cheap/);
    expect(writes).toEqual([
      "patch instances 200",
      "create pods 201",
      "patch instances/status 200",
      "patch instances/status 200",
      "create events 201",
    ]);
    await remove("cheap");
    await isGone("cheap");
  });

  it("costs no more when its agent says for a while that it has begun", async () => {
    nodes.guestFor = () => ({ state: "Preparing", image: { ready: false, reason: "Fetching", message: "it is fetched" } });
    await apply("slow");
    await until("its agent has begun", cluster.seenInstances, () => statusOf("slow")?.guest?.state === "Preparing");
    // Longer than changes are gathered that nobody waits for.
    await new Promise((resolve) => setTimeout(resolve, 1300));
    expect(statusOf("slow")).toMatchObject({ phase: "Starting", reason: "WaitingForAgent" });
    nodes.guestFor = () => ({});
    nodes.lookAgain();
    await isReady("slow");
    await operator?.stop();
    operator = await startOperator(cluster, network);
    const writes = await writesOf(cluster, "drover-operator", /^slow$/);
    expect(writes).toEqual(["patch instances 200", "patch instances/status 200", "patch instances/status 200"]);
    await remove("slow");
    await isGone("slow");
  });

  it("waits for an unknown network, and heals when it appears", async () => {
    await apply("early", { nics: [{ name: "eth0", network: "green" }] });
    const status = await phase("early", "Pending", "NetworkNotFound");
    expect(status.conditions?.find(({ type }) => type === "NetworkReady")).toMatchObject({
      status: "False",
      message: "there is no Network green; make it",
    });
    expect(claimsOf("early")).toEqual([]);
    await makeNetwork(cluster.client, "green");
    await isReady("early");
    await remove("early");
    await isGone("early");
  });

  it("waits for an unknown pool, and heals when it appears", async () => {
    await apply("lost", { rootDisk: { pool: "fast", size: "1Gi" } });
    await phase("lost", "Pending", "PoolNotFound");
    expect(ready("lost")?.message).toBe("spec.rootDisk.pool: there is no StoragePool fast; make it (known are local)");
    await makePool(cluster.client, "fast");
    await phase("lost", "Pending", "WaitingForPool");
    await makeNode(cluster.client, "n-fast", "fast", 10);
    await isReady("lost");
    expect(statusOf("lost")?.nodeName).toBe("n-fast");
    await remove("lost");
    await isGone("lost");
  });

  it("makes no claim before a Node offers the pool, says why, and warns of nothing", async () => {
    await hostSays(cluster.client, "n1", []);
    await makePool(cluster.client, "new", { disk: "nvme" });
    await apply("early-bird", { rootDisk: { pool: "new", size: "1Gi" } });
    const says = (text: string) =>
      until(text, cluster.seenInstances, () => {
        const scheduled = statusOf("early-bird")?.conditions?.find(({ type }) => type === "Scheduled");
        return scheduled?.reason === "WaitingForPool" && scheduled.message.includes(text) ? scheduled : undefined;
      });
    expect(await says("no node with Drover's agent has the labels of spec.nodeSelector")).toMatchObject({ status: "False" });
    // As when the pool is being made there: the node has it, and no room in it.
    await makeNode(cluster.client, "n-new", "new", 0);
    await hostSays(cluster.client, "n-new", [{ name: "new", ready: false, reason: "Making", message: "it is being formatted" }]);
    await says("n-new: it is being formatted");
    expect(claimsOf("early-bird")).toEqual([]);
    await offerRoom(cluster.client, "n-new", "new", 10);
    await isReady("early-bird");
    await operator?.stop();
    operator = await startOperator(cluster, network);
    const events = await cluster.client.list(resources.events, { namespace: NAMESPACE });
    const told = events
      .filter(({ regarding }) => regarding?.name?.includes("early-bird"))
      .map(({ type, reason, reportingController }) => `${reportingController} ${type} ${reason}`);
    expect(told.filter((one) => !one.includes("default-scheduler Normal Scheduled")).toSorted()).toEqual([
      "drover.dev/operator Normal Running",
      "drover.dev/operator Normal WaitingForPool",
    ]);
    await remove("early-bird");
    await isGone("early-bird");
  });

  it("says what refuses its claim", async () => {
    await apply("gold", { placement: { priorityClassName: "gold" } });
    await phase("gold", "Pending", "ClaimRefused");
    expect(ready("gold")?.message).toContain("no PriorityClass with name gold was found");
    await remove("gold");
    await isGone("gold");
  });

  it("would rather not land on a node whose agent is not ready", async () => {
    await makePool(cluster.client, "shared");
    for (const name of ["good", "bad-1", "bad-2"]) await makeNode(cluster.client, name, "shared", 10);
    for (const name of ["bad-1", "bad-2"]) await hostSays(cluster.client, name, [], false);
    for (const name of ["picky-1", "picky-2", "picky-3"]) await apply(name, { rootDisk: { pool: "shared", size: "1Gi" } });
    for (const name of ["picky-1", "picky-2", "picky-3"]) {
      await isReady(name);
      expect(statusOf(name)?.nodeName).toBe("good");
      await remove(name);
      await isGone(name);
    }
  });

  it("has its namespace's budget again when somebody deletes it", async () => {
    const ended = new AbortController();
    const budgets = new Informer(cluster.client, resources.podDisruptionBudgets);
    budgets.start(ended.signal);
    await apply("kept");
    await isReady("kept");
    const before = await until("a budget", budgets, () => budgets.get(keyFor(CLAIMS_BUDGET)));
    await cluster.client.delete(resources.podDisruptionBudgets, keyFor(CLAIMS_BUDGET));
    const after = await until("another budget", budgets, () => {
      const now = budgets.get(keyFor(CLAIMS_BUDGET));
      return now !== undefined && now.metadata.uid !== before.metadata.uid ? now : undefined;
    });
    expect(after.spec).toEqual(before.spec);
    await remove("kept");
    await isGone("kept");
    ended.abort();
    await budgets.stopped();
  });

  it("is Unknown while its node does not answer, and nothing else happens to it", async () => {
    await apply("away");
    await isReady("away");
    const [claim] = claimsOf("away");
    await nodeReady(cluster.client, "n1", false);
    const status = await phase("away", "Unknown", "NodeNotReady");
    expect(ready("away")).toMatchObject({
      status: "Unknown",
      message: "node n1 is not ready: Kubelet stopped posting node status.",
    });
    expect(status.claim?.uid).toBe(claim?.metadata.uid);
    await nodeReady(cluster.client, "n1", true);
    await isReady("away");
    expect(claimsOf("away").map((pod) => pod.metadata.uid)).toEqual([claim?.metadata.uid]);
    await remove("away");
    await isGone("away");
  });

  it("is not Ready after its node's power cut before its agent was heard of", async () => {
    const { client } = cluster;
    const bootIs = (bootID: string) =>
      client.patchMerge<Node>(resources.nodes, { name: "n1" }, { status: { nodeInfo: { bootID } } }, { subresource: "status" });
    const readiness: string[] = [];
    await bootIs("boot-1");
    await agentBeats(client, "n1", "boot-1");
    await apply("cut");
    await isReady("cut");
    // The kubelet's times are whole seconds.
    await new Promise((resolve) => setTimeout(resolve, 1100));
    await nodeReady(client, "n1", false);
    await phase("cut", "Unknown", "NodeNotReady");
    const unwatch = cluster.seenInstances.onChange(() => readiness.push(`${ready("cut")?.status} ${ready("cut")?.reason}`));
    await nodeReady(client, "n1", true);
    await phase("cut", "Unknown", "AgentNotBack");
    // A new leader sees it no otherwise.
    await operator?.stop();
    operator = await startOperator(cluster, network);
    await until("a reconcile of the new one", cluster.seenInstances, () => ready("cut")?.status === "Unknown");
    await agentBeats(client, "n1", "boot-1");
    await isReady("cut");
    expect(readiness.filter((one) => !one.startsWith("Unknown")).slice(0, -1)).toEqual([]);
    // Away for so short that nobody missed it.
    await bootIs("boot-2");
    await phase("cut", "Unknown", "AgentNotBack");
    await agentBeats(client, "n1", "boot-1");
    await agentBeats(client, "n1", "boot-2");
    await isReady("cut");
    unwatch();
    await agentForgotten(client, "n1");
    await remove("cut");
    await isGone("cut");
  });

  it("gets a new claim only after its agent says that nothing runs in the lost one", async () => {
    await apply("robbed");
    await isReady("robbed");
    const before = statusOf("robbed")?.claim;
    nodes.silent.add("n1");
    await cluster.client.delete(resources.pods, { namespace: NAMESPACE, name: before?.name ?? "" }, { gracePeriodSeconds: 0 });
    await phase("robbed", "Stopping", "ClaimLost");
    expect(claimsOf("robbed")).toEqual([]);
    nodes.silent.delete("n1");
    nodes.lookAgain();
    const after = await until("a second claim", cluster.seenInstances, () => {
      const claim = statusOf("robbed")?.claim;
      return claim?.serial === 2 && claim.uid !== undefined ? claim : undefined;
    });
    expect(after.uid).not.toBe(before?.uid);
    await isReady("robbed");
    await remove("robbed");
    await isGone("robbed");
  });

  it("that was never placed is deleted at once", async () => {
    await apply("huge", { memory: "900Gi" });
    await phase("huge", "Pending", "Unschedulable");
    nodes.silent.add("n1");
    await remove("huge");
    await isGone("huge");
    nodes.silent.delete("n1");
    expect(claimsOf("huge")).toEqual([]);
  });

  it("that vanishes without its release loses its claim, which keeps its grace period", async () => {
    const { metadata } = await apply("vanished");
    await isReady("vanished");
    const [before] = claimsOf("vanished");
    nodes.silent.add("n1");
    await remove("vanished");
    await until("it waits for its agent", cluster.seenInstances, () => ready("vanished")?.reason === "Deleting");
    await cluster.client.patchMerge<Instance>(instances, keyFor("vanished"), { metadata: { finalizers: null } });
    await isGone("vanished");
    const deleted = await until("its claim is deleted", cluster.seenPods, () => {
      const pod = claimsOf("vanished").find(({ metadata: { uid } }) => uid === before?.metadata.uid);
      return pod?.metadata.deletionTimestamp === undefined ? undefined : pod;
    });
    expect(deleted.metadata.deletionGracePeriodSeconds).toBe(3600);
    const again = await apply("vanished");
    expect(again.metadata.uid).not.toBe(metadata.uid);
    nodes.silent.delete("n1");
    nodes.lookAgain();
    await isReady("vanished");
    await until("the old claim is gone", cluster.seenPods, () => claimsOf("vanished").length === 1);
    await remove("vanished");
    await isGone("vanished");
    expect(await cluster.client.get(resources.podDisruptionBudgets, keyFor(CLAIMS_BUDGET))).toBeUndefined();
  });

  it("that vanished while no operator looked loses its claim when one does, and the namespace its budget", async () => {
    await apply("unseen");
    await isReady("unseen");
    await operator?.stop();
    await cluster.client.patchMerge<Instance>(instances, keyFor("unseen"), { metadata: { finalizers: null } });
    await remove("unseen");
    await isGone("unseen");
    expect(claimsOf("unseen")).toHaveLength(1);
    const ended = new AbortController();
    const budgets = new Informer(cluster.client, resources.podDisruptionBudgets);
    budgets.start(ended.signal);
    operator = await startOperator(cluster, network);
    await until("no claim is left", cluster.seenPods, () => claimsOf("unseen").length === 0);
    await until("no budget is left", budgets, () => budgets.hasSynced && budgets.get(keyFor(CLAIMS_BUDGET)) === undefined);
    ended.abort();
    await budgets.stopped();
  });

  it("on a node that is gone for good is let go without its agent, and not before", async () => {
    await makeNode(cluster.client, "doomed", "doomed", 10);
    await makePool(cluster.client, "doomed");
    await apply("orphan", { rootDisk: { pool: "doomed", size: "1Gi" } });
    await isReady("orphan");
    nodes.silent.add("doomed");
    await nodeReady(cluster.client, "doomed", false);
    await remove("orphan");
    await until("its status names the node", cluster.seenInstances, () => ready("orphan")?.reason === "NodeNotReady");
    expect(cluster.seenInstances.get(keyFor("orphan"))?.metadata.finalizers).toEqual([INSTANCE_FINALIZER]);
    await cluster.client.delete(resources.nodes, { name: "doomed" });
    await isGone("orphan");
    const events = await cluster.client.list(resources.events, { namespace: NAMESPACE });
    expect(events.filter(({ regarding }) => regarding?.name === "orphan").map(({ reason }) => reason)).toContain(
      "ReleasedWithoutAgent",
    );
  });
});

describe("an operator that is killed at every write", () => {
  /** A whole life, by operators that die at their nth write, the first one of which at `killAt`; returns how many writes the first one made. */
  async function liveThrough(name: string, killAt: number): Promise<boolean> {
    let current = await startOperator(cluster, network, { killBeforeWrite: killAt });
    let died = false;
    let over = false;
    const takeOver = current.killed.then(async () => {
      // One that dies of the last of its writes while it is stopped is followed by nobody.
      if (over) return;
      died = true;
      await current.stop();
      current = await startOperator(cluster, network);
    });
    const claims = new Set<string>();
    let most = 0;
    const unwatch = cluster.seenPods.onChange(() => {
      const alive = claimsOf(name).filter((pod) => pod.metadata.deletionTimestamp === undefined);
      for (const pod of alive) claims.add(pod.metadata.uid ?? "");
      most = Math.max(most, alive.length);
    });
    try {
      const { metadata } = await apply(name);
      await isReady(name);
      await power(name, "Stopped");
      await phase(name, "Stopped", "PoweredOff");
      await power(name, "Running");
      await until(
        `${name} runs again`,
        cluster.seenInstances,
        () => statusOf(name)?.claim?.serial === 2 && ready(name)?.status === "True",
      );
      await remove(name);
      await isGone(name);
      expect({ most, claims: claims.size, left: claimsOf(name).length, port: network.ports.has(metadata.uid) }).toEqual({
        most: 1,
        claims: 2,
        left: 0,
        port: false,
      });
    } finally {
      unwatch();
      over = true;
      if (died) await takeOver;
      await current.stop();
    }
    return died;
  }

  it("converges to the same end, without a second claim", async () => {
    let kills = 0;
    // Until an operator lives long enough to make all its writes itself.
    while (await liveThrough(`killed-${kills}`, kills)) kills += 1;
    expect(kills).toBeGreaterThan(10);
    expect(nodes.failures).toEqual([]);
  });
});
