/** Evictions of claims, on a real API server: what is refused, in which words, what is noted, and what follows. */
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { instances, migrations } from "../../crds/resources.ts";
import type { Instance, InstanceSpec } from "../../crds/instance.ts";
import type { Migration } from "../../crds/migration.ts";
import { Informer, resources, type KubeEvent, type Pod } from "../../kube/index.ts";
import { instanceFixture } from "../../operator/instance/fixtures.ts";
import { serveEvictions, type Evictions } from "./drain-kit.ts";
import {
  makeNode,
  makePool,
  NAMESPACE,
  NetworkStandIn,
  NodeStandIn,
  startCluster,
  startOperator,
  until,
  type Cluster,
  type RunningOperator,
} from "./operator-kit.ts";

let cluster: Cluster;
let nodes: NodeStandIn;
let operator: RunningOperator;
let evictions: Evictions;
let moves: Informer<Migration>;
let events: Informer<KubeEvent>;
const ended = new AbortController();

beforeAll(async () => {
  cluster = await startCluster();
  await makePool(cluster.client, "local");
  await makeNode(cluster.client, "n1", "local", 100);
  nodes = new NodeStandIn(cluster);
  operator = await startOperator(cluster, new NetworkStandIn());
  evictions = await serveEvictions(cluster);
  moves = new Informer(cluster.client, migrations);
  events = new Informer(cluster.client, resources.events);
  for (const one of [moves, events]) one.start(ended.signal);
  await Promise.all([moves.synced, events.synced]);
  // A webhook holds a moment after it was made.
  await comesUp("first");
  const answers = async (): Promise<void> => {
    const said = await evict("first", { dryRun: ["All"] });
    if (!said.includes("instance first")) throw new Error(said);
  };
  await vi.waitFor(answers, { timeout: 30_000 });
});
afterAll(async () => {
  ended.abort();
  await Promise.all([moves?.stopped(), events?.stopped()]);
  await evictions?.stop();
  await operator?.stop();
  await nodes?.stop();
  await cluster?.stop();
});

const key = (name: string) => ({ namespace: NAMESPACE, name });
const instanceOf = (name: string): Instance | undefined => cluster.seenInstances.get(key(name));
const condition = (name: string, type: string) => instanceOf(name)?.status?.conditions?.find((one) => one.type === type);
const claimOf = (name: string): Pod | undefined => {
  const claim = instanceOf(name)?.status?.claim?.name;
  return claim === undefined ? undefined : cluster.seenPods.get(key(claim));
};
const claimName = (name: string): string => claimOf(name)?.metadata.name ?? `(${name} has no claim)`;
const evict = (name: string, options?: object, query?: string) => evictions.evict(claimName(name), options, query);
const noted = (name: string) => claimOf(name)?.metadata.annotations?.["drover.dev/evicted-last"];
const moveOf = (name: string) => moves.list().find(({ spec }) => spec.instance === name);
const eventsOf = (name: string) => events.list().filter(({ regarding }) => regarding?.name === name);

async function make(name: string, spec: Partial<InstanceSpec> = {}): Promise<void> {
  const { apiVersion, kind, spec: all } = instanceFixture({ spec: { nics: [], ...spec } });
  await cluster.client.create(instances, { apiVersion, kind, metadata: { namespace: NAMESPACE, name }, spec: all });
}
async function comesUp(name: string, spec: Partial<InstanceSpec> = {}): Promise<void> {
  await make(name, spec);
  await until(`${name} is ready`, cluster.seenInstances, () => condition(name, "Ready")?.status === "True");
}
const says = (name: string, reason: string) =>
  until(`${name} says ${reason}`, cluster.seenInstances, () => {
    const draining = condition(name, "Draining");
    return draining?.reason === reason && draining;
  });

describe("a claim that runs", () => {
  it("is refused with 429 and a sentence, noted, and moved", async () => {
    await comesUp("web");
    const said = await evict("web");
    expect(said).toContain("(TooManyRequests)");
    expect(said).toContain("instance web is moved to another node first");
    await until("it is noted", cluster.seenPods, () => noted("web"));
    const move = await until("a Migration is made", moves, () => moveOf("web"));
    expect(move.metadata.name).toMatch(/^drain-web-[0-9a-f]{8}$/);
    expect(move.spec).toMatchObject({ instance: "web", priority: "Drain" });
    expect(move.metadata.ownerReferences).toMatchObject([{ kind: "Instance", name: "web" }]);
    expect(claimOf("web")?.metadata.deletionTimestamp).toBeUndefined();
    await vi.waitFor(async () => expect(await evict("web")).toContain(`Migration ${move.metadata.name}`));
    await until("it says so", cluster.seenInstances, () => condition("web", "Draining")?.status === "True");
    await until("an event tells", events, () => eventsOf("web").some(({ reason }) => reason?.startsWith("Drain")));
    expect(moves.list().filter(({ spec }) => spec.instance === "web")).toHaveLength(1);
  });

  it.each([
    ["of the eviction", { dryRun: ["All"] }, ""],
    ["of the request", undefined, "?dryRun=All"],
  ])("is refused, and nothing noted, by a dry run %s", async (_, options, query) => {
    const before = claimOf("first")?.metadata.resourceVersion;
    expect(await evict("first", options, query)).toContain("instance first is moved to another node first");
    const now = await cluster.client.get(resources.pods, key(claimName("first")));
    expect(now?.metadata.annotations?.["drover.dev/evicted-last"]).toBeUndefined();
    expect(now?.metadata.resourceVersion).toBe(before);
  });

  it("that refuses to leave says what to do, in the refusal, a condition and an event", async () => {
    await comesUp("stays", { onDrain: "Refuse" });
    const words = "stays where it is, as its spec.onDrain says: Refuse; stop it (spec.power: Stopped)";
    expect(await evict("stays")).toContain(`instance stays ${words}`);
    expect((await says("stays", "OnDrainRefuse")).message).toContain(words);
    const event = await until("an event tells", events, () => eventsOf("stays").find(({ reason }) => reason === "DrainStuck"));
    expect(event).toMatchObject({ type: "Warning" });
    expect(event.note).toContain(words);
    expect(moveOf("stays")).toBeUndefined();
  });

  it("that stops is shut down, and started again in a new claim", async () => {
    await comesUp("stops", { onDrain: "Stop" });
    const before = claimOf("stops");
    expect(await evict("stops")).toContain("instance stops is shut down first, as its spec.onDrain says: Stop");
    const again = () =>
      instanceOf("stops")?.status?.claim?.serial === 2 && condition("stops", "Ready")?.status === "True" && claimOf("stops");
    const after = await until("it runs again", cluster.seenInstances, again);
    expect(after.metadata.uid).not.toBe(before?.metadata.uid);
    await says("stops", "NotAsked");
  });

  it("waits on a cordoned node for the node to come back", async () => {
    await comesUp("waits", { onDrain: "Stop" });
    await cluster.client.patchMerge(resources.nodes, { name: "n1" }, { spec: { unschedulable: true } });
    try {
      await evict("waits");
      const waits = () => {
        const { phase, claim } = instanceOf("waits")?.status ?? {};
        return phase === "Pending" && claim?.serial === 2 && condition("waits", "Scheduled")?.reason === "Unschedulable";
      };
      await until("it waits", cluster.seenInstances, waits);
      // Nothing runs in a claim that has no node.
      expect(await evict("waits")).toBe("evicted");
    } finally {
      await cluster.client.patchMerge(resources.nodes, { name: "n1" }, { spec: { unschedulable: null } });
    }
    await until("it runs again", cluster.seenInstances, () => condition("waits", "Ready")?.status === "True", 60_000);
  });
});

describe("a claim whose holder does not run yet", () => {
  it("is refused, too, once an agent was told of it", async () => {
    nodes.silent.add("n1");
    try {
      await make("early");
      await until("it is bound", cluster.seenInstances, () => instanceOf("early")?.status?.claim?.uid);
      expect(claimOf("early")?.status?.phase).toBe("Pending");
      const said = await evict("early");
      expect(said).toContain("(TooManyRequests)");
      expect(said).toContain("instance early is about to start on node n1; it is moved once it runs");
      const now = await cluster.client.get(resources.pods, key(claimName("early")));
      expect(now?.metadata.deletionTimestamp).toBeUndefined();
    } finally {
      nodes.silent.delete("n1");
      nodes.lookAgain();
    }
    await until("it is moved now", moves, () => moveOf("early"));
  });
});

describe("a pod of somebody else", () => {
  it("goes its way, whatever its name", async () => {
    for (const name of ["drover-not-ours", "other"]) {
      const spec = { nodeName: "n1", containers: [{ name: "a", image: "none" }] };
      await cluster.client.create(resources.pods, { apiVersion: "v1", kind: "Pod", metadata: key(name), spec });
      expect(await evictions.evict(name)).toBe("evicted");
    }
    expect(await evictions.evict("drover-no-such-pod")).toContain("NotFound");
  });
});

describe("a claim that is being deleted", () => {
  it("is not hurried", async () => {
    await comesUp("slow", { onDrain: "Stop" });
    nodes.silent.add("n1");
    try {
      await evict("slow");
      await until("its claim is being deleted", cluster.seenPods, () => claimOf("slow")?.metadata.deletionTimestamp);
      await vi.waitFor(async () => {
        expect(await evict("slow", { gracePeriodSeconds: 0 })).toContain("instance slow is being shut down");
      });
      expect(await evict("slow")).toBe("evicted");
      const now = await cluster.client.get(resources.pods, key(claimName("slow")));
      expect(now?.metadata.deletionGracePeriodSeconds).toBe(3600);
    } finally {
      nodes.silent.delete("n1");
      nodes.lookAgain();
    }
  });
});

describe("the webhook", () => {
  const ask = async (path: string, body: string): Promise<number> => {
    const { Agent, request } = await import("undici");
    const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
    const url = `https://127.0.0.1:${evictions.webhook.port}${path}`;
    const answer = await request(url, { method: "POST", body, dispatcher });
    await answer.body.dump();
    await dispatcher.close();
    return answer.statusCode;
  };

  it("answers nobody who does not know its address, and no nonsense", async () => {
    expect(await ask("/evictions/guessed", "{}")).toBe(404);
    expect(await ask("/evictions/0123456789abcdef0123456789abcdef", "{}")).toBe(500);
    expect(await ask("/evictions/0123456789abcdef0123456789abcdef", "x".repeat(300_000))).toBe(500);
  });

  it("may be down: the budget refuses", async () => {
    await evictions.webhook.close();
    const said = await evict("first");
    expect(said).toContain("(TooManyRequests)");
    expect(said).toMatch(/disruption budget/i);
    expect(noted("first")).toBeUndefined();
  });
});
