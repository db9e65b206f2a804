/** The operator as a process: two replicas, one leader, what they serve, and how they end. */
import { fileURLToPath } from "node:url";
import { execa, type ResultPromise } from "execa";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { instances } from "../../crds/resources.ts";
import { Informer, resources, type Lease } from "../../kube/index.ts";
import { freePorts } from "../../hack/control-plane/local.ts";
import { instanceFixture } from "../../operator/instance/fixtures.ts";
import { NAMESPACE, NodeStandIn, makeNode, makePool, startCluster, until, type Cluster } from "./operator-kit.ts";

const MAIN = fileURLToPath(new URL("../../operator/main.ts", import.meta.url));
const OPERATOR_NAMESPACE = "drover-system";
const LEASE = { namespace: OPERATOR_NAMESPACE, name: "drover-operator" };

interface Replica {
  name: string;
  port: number;
  process: ResultPromise<{ reject: false; all: true }>;
}

let cluster: Cluster;
let nodes: NodeStandIn;
let leases: Informer<Lease>;
const ended = new AbortController();
const replicas: Replica[] = [];

function startReplica(name: string, port: number): Replica {
  const env = {
    KUBECONFIG: cluster.plane.kubeconfig,
    POD_NAME: name,
    POD_NAMESPACE: OPERATOR_NAMESPACE,
    DROVER_HOLDER_IMAGE: "drover/holder:test",
    DROVER_HTTP_PORT: String(port),
    // There is no OVN here; instances without a NIC need none.
    DROVER_OVN_NB: "tcp:127.0.0.1:1",
    LOG_LEVEL: "info",
  };
  const replica = {
    name,
    port,
    process: execa(process.execPath, [MAIN], { env, reject: false, all: true, cleanup: true } as const),
  };
  replicas.push(replica);
  return replica;
}

const leader = () => leases.get(LEASE)?.spec?.holderIdentity;
const leads = (name: string) => until(`${name} leads`, leases, () => leader() === name, 40_000);

async function comesUp(name: string, deadlineMs = 20_000): Promise<void> {
  const { apiVersion, kind, spec } = instanceFixture({ spec: { nics: [] } });
  await cluster.client.create(instances, { apiVersion, kind, metadata: { namespace: NAMESPACE, name }, spec });
  const isReady = () =>
    cluster.seenInstances
      .get({ namespace: NAMESPACE, name })
      ?.status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True");
  await until(`${name} is Ready`, cluster.seenInstances, isReady, deadlineMs);
}

beforeAll(async () => {
  cluster = await startCluster();
  await makePool(cluster.client, "local");
  await makeNode(cluster.client, "n1", "local", 100);
  nodes = new NodeStandIn(cluster);
  leases = new Informer(cluster.client, resources.leases, { namespace: OPERATOR_NAMESPACE });
  leases.start(ended.signal);
  await leases.synced;
});

afterAll(async () => {
  for (const { process: one } of replicas) one.kill("SIGKILL");
  await Promise.all(replicas.map(({ process: one }) => one));
  ended.abort();
  await leases?.stopped();
  await nodes?.stop();
  await cluster?.stop();
});

describe("two replicas", () => {
  it("have one leader; both are ready, and tell their figures", async () => {
    const { etcdClient, etcdPeer } = await freePorts();
    startReplica("op-a", etcdClient);
    await leads("op-a");
    startReplica("op-b", etcdPeer);
    await comesUp("one");
    const ask = async (port: number, path: string) => {
      const answer = await fetch(`http://127.0.0.1:${port}${path}`);
      return `${answer.status} ${await answer.text()}`;
    };
    expect(await ask(etcdClient, "/readyz")).toBe("200 ok\n");
    expect(await ask(etcdClient, "/metrics")).toContain('drover_instances{phase="Running"} 1');
    expect(leader()).toBe("op-a");
  });

  it("hand over at once when the leader is asked to end", async () => {
    const [first] = replicas;
    const before = performance.now();
    first?.process.kill("SIGTERM");
    const result = await first?.process;
    expect({ exitCode: result?.exitCode, log: result?.all }).toMatchObject({ exitCode: 0 });
    // Handed back, not left to end by itself some ten seconds later.
    const lease = await cluster.client.get(resources.leases, LEASE);
    expect(["", "op-b"]).toContain(lease?.spec?.holderIdentity);
    await leads("op-b");
    // The other asks every two seconds.
    expect(performance.now() - before).toBeLessThan(6_000);
    await comesUp("two");
  });

  it("take over when the leader is killed, and go on where it was", async () => {
    const { apiserver } = await freePorts();
    startReplica("op-c", apiserver);
    const victim = replicas.find(({ name }) => name === "op-b");
    victim?.process.kill("SIGKILL");
    await leads("op-c");
    await comesUp("three");
    await cluster.client.delete(instances, { namespace: NAMESPACE, name: "one" });
    await until("one is gone", cluster.seenInstances, () => !cluster.seenInstances.get({ namespace: NAMESPACE, name: "one" }));
    await until("its claim is gone", cluster.seenPods, () => cluster.seenPods.list().length === 2);
    expect(leader()).toBe("op-c");
  });
});

it("ends with a sentence when its environment is wrong", async () => {
  const { exitCode, stdout } = await execa(process.execPath, [MAIN], {
    reject: false,
    extendEnv: false,
    env: { POD_NAME: "a" },
    timeout: 20_000,
  });
  expect(exitCode).toBe(1);
  expect(stdout).toContain("POD_NAMESPACE must be set; DROVER_HOLDER_IMAGE must be set");
});
