/**
 * A claim whose Instance was forced out of the API, with everything real that has a say in it: Kubernetes' garbage collector, the
 * chart's admission policies, and an operator with no more than the chart's RBAC.
 */
import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import type { Instance } from "../../crds/instance.ts";
import { instances } from "../../crds/resources.ts";
import { KubeClient, resources } from "../../kube/index.ts";
import { instanceFixture } from "../../operator/instance/fixtures.ts";
import { installChart, type Installed, NAMESPACE as SYSTEM } from "./chart-kit.ts";
import {
  makePool,
  NAMESPACE,
  NetworkStandIn,
  nodeReady,
  NodeStandIn,
  offerRoom,
  startOperator,
  until,
  type RunningOperator,
} from "./operator-kit.ts";
import { makeNamespace, watchCluster, type Cluster } from "./support/cluster.ts";

const key = { namespace: NAMESPACE, name: "vanished" };
let installed: Installed;
let cluster: Pick<Cluster, "client" | "seenInstances" | "seenPods" | "stop">;
let asOperator: KubeClient;
let nodes: NodeStandIn;
let operator: RunningOperator | undefined;

/** A client that may do what the chart gives this service account. */
async function serviceAccount(name: string): Promise<KubeClient> {
  const token = await installed.kubectl.accepted(["create", "token", name, "-n", SYSTEM, "--duration=1h"]);
  const ca = await readFile(installed.plane.pki.ca, "base64");
  const kubeconfig = {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "c", cluster: { server: installed.plane.server, "certificate-authority-data": ca } }],
    users: [{ name: "u", user: { token: token.trim() } }],
    contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
    "current-context": "x",
  };
  return KubeClient.fromKubeconfig(JSON.stringify(kubeconfig), { userAgent: name });
}

/** What the garbage collector says of the claim; its log is the proof that it tried. */
const collector = async (): Promise<string> => {
  const log = await readFile(installed.plane.started["kube-controller-manager"]?.logFile ?? "", "utf8");
  return log
    .split("\n")
    .filter((line) => line.includes("drover-vanished-"))
    .join("\n");
};

const claims = () => cluster.seenPods.list().filter((pod) => pod.metadata.ownerReferences?.[0]?.name === key.name);

beforeAll(async () => {
  const flags = ["--controllers=garbage-collector-controller", "-v=2"];
  installed = await installChart({ scheduler: {}, controllerManager: { flags } });
  const client = KubeClient.fromKubeconfig(await readFile(installed.plane.kubeconfig, "utf8"), { userAgent: "drover-test" });
  await makeNamespace(client, NAMESPACE);
  await makePool(client, "local");
  await offerRoom(client, "n1", "local", 10);
  await nodeReady(client, "n1", true);
  cluster = { client, ...(await watchCluster(client)) };
  nodes = new NodeStandIn(cluster);
  asOperator = await serviceAccount("drover-operator");
});

afterAll(async () => {
  await operator?.stop();
  await nodes?.stop();
  await cluster?.stop();
  await installed?.stop();
});

it("outlives the garbage collector, which is refused, and is deleted by the operator with its grace period", async () => {
  operator = await startOperator({ client: asOperator }, new NetworkStandIn());
  const { apiVersion, kind, spec } = instanceFixture({ spec: { nics: [] } });
  await cluster.client.create(instances, { apiVersion, kind, metadata: key, spec });
  const isReady = () =>
    cluster.seenInstances.get(key)?.status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True");
  await until("it is Ready", cluster.seenInstances, isReady);
  const [claim] = claims();
  expect(claim).toBeDefined();

  await operator.stop();
  nodes.silent.add("n1");
  await cluster.client.patchMerge<Instance>(instances, key, { metadata: { finalizers: null } });
  await cluster.client.delete(instances, key);
  await until("it is gone", cluster.seenInstances, () => cluster.seenInstances.get(key) === undefined);
  await vi.waitFor(async () => expect(await collector()).toMatch(/is the place of instance vanished/), {
    timeout: 60_000,
    interval: 250,
  });
  expect(claims().map(({ metadata }) => [metadata.uid, metadata.deletionTimestamp])).toEqual([[claim?.metadata.uid, undefined]]);

  operator = await startOperator({ client: asOperator }, new NetworkStandIn());
  const deleted = await until("the operator deletes it", cluster.seenPods, () =>
    claims().find(({ metadata }) => metadata.deletionTimestamp !== undefined),
  );
  expect(deleted.metadata.deletionGracePeriodSeconds).toBe(3600);
  nodes.silent.delete("n1");
  nodes.lookAgain();
  await until("it has ended", cluster.seenPods, () => claims().length === 0);
  await vi.waitFor(async () =>
    expect(await cluster.client.list(resources.podDisruptionBudgets, { namespace: NAMESPACE })).toEqual([]),
  );
  expect(nodes.failures).toEqual([]);
});
