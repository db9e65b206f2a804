/** StoragePools against a real API server: summed up from Hosts, kept while they are used. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { POOL_FINALIZER } from "../../crds/names.ts";
import type { StoragePool } from "../../crds/pool.ts";
import { instances, storagePools } from "../../crds/resources.ts";
import { Informer } from "../../kube/index.ts";
import { instanceFixture } from "../../operator/instance/fixtures.ts";
import { GIB } from "../../crds/quantity.ts";
import {
  NAMESPACE,
  NetworkStandIn,
  hostSays,
  makeNode,
  makePool,
  nodeReady,
  startCluster,
  startOperator,
  until,
  writesOf,
  type Cluster,
  type RunningOperator,
} from "./operator-kit.ts";

let cluster: Cluster;
let operator: RunningOperator;
let pools: Informer<StoragePool>;
const ended = new AbortController();

beforeAll(async () => {
  cluster = await startCluster();
  for (const node of ["n1", "n2"]) await makeNode(cluster.client, node, "local", 8);
  pools = new Informer(cluster.client, storagePools);
  pools.start(ended.signal);
  await pools.synced;
  operator = await startOperator(cluster, new NetworkStandIn());
});

afterAll(async () => {
  ended.abort();
  await pools?.stopped();
  await operator?.stop();
  await cluster?.stop();
});

const onNode = (usedBytes: number) => [{ name: "local", ready: true, sizeBytes: 8 * GIB, usedBytes }];

/** `nodes size used Ready-status reason: message` */
const summary = () => {
  const { nodes, size, used, conditions } = pools.get({ name: "local" })?.status ?? {};
  const ready = conditions?.find(({ type }) => type === "Ready");
  return `${nodes} ${size} ${used} ${ready?.status} ${ready?.reason}: ${ready?.message}`;
};
const says = (text: string) => until(text, pools, () => summary().includes(text));

it("is summed up from its nodes, and says what a failing one says", async () => {
  await makePool(cluster.client, "local");
  await says("0/0 0 0 False NoNodes: no node has it");
  await hostSays(cluster.client, "n1", onNode(GIB));
  await says("1/1 8Gi 1Gi True Ready: ready on its node");
  await hostSays(cluster.client, "n2", [{ name: "local", ready: false, reason: "NoSpace", message: "/var/lib has 1Gi left" }]);
  await says("1/2 8Gi 1Gi False NoSpace: node n2: /var/lib has 1Gi left");
  await hostSays(cluster.client, "n2", onNode(GIB));
  await says("2/2 16Gi 2Gi True Ready: ready on all 2 nodes");
  const tight = { reason: "NotEnoughSpace", message: "/var/lib has 1Gi left" };
  await hostSays(
    cluster.client,
    "n2",
    onNode(GIB).map((pool) => ({ ...pool, ...tight })),
  );
  await says("2/2 16Gi 2Gi True NotEnoughSpace: ready on all 2 nodes; but node n2: /var/lib has 1Gi left");
  await hostSays(cluster.client, "n2", onNode(GIB));
  await says("2/2 16Gi 2Gi True Ready: ready on all 2 nodes");
  await nodeReady(cluster.client, "n2", false);
  await says("1/2 16Gi 2Gi False NodeNotReady: node n2 is not ready");
  await nodeReady(cluster.client, "n2", true);
  await says("2/2 16Gi 2Gi True");
  expect(pools.get({ name: "local" })?.metadata.finalizers).toEqual([POOL_FINALIZER]);
});

it("writes figures that move at most every five seconds", async () => {
  const before = (await writesOf(cluster, "drover-operator", /^local$/)).length;
  for (let n = 2; n < 30; n += 1) await hostSays(cluster.client, "n1", onNode((n * GIB) / 8));
  await says("2/2 16Gi 4.6Gi True");
  const writes = (await writesOf(cluster, "drover-operator", /^local$/)).slice(before);
  expect(writes.length).toBeLessThanOrEqual(2);
});

it("is kept while instances use it, and until no node has it", async () => {
  const { apiVersion, kind, spec } = instanceFixture({ spec: { nics: [], power: "Stopped" } });
  await cluster.client.create(instances, { apiVersion, kind, metadata: { namespace: NAMESPACE, name: "user" }, spec });
  await until("the instance is seen", cluster.seenInstances, () => cluster.seenInstances.list()[0]?.status?.phase === "Stopped");
  await cluster.client.delete(storagePools, { name: "local" });
  await says("False InUse: it is used by the instance team-a/user; delete them first");
  await cluster.client.delete(instances, { namespace: NAMESPACE, name: "user" });
  await says("False Deleting: waiting for n1, n2 to take it down");
  expect(pools.get({ name: "local" })?.metadata.finalizers).toEqual([POOL_FINALIZER]);
  await hostSays(cluster.client, "n1", []);
  await says("waiting for n2 to take it down");
  await hostSays(cluster.client, "n2", []);
  await until("the pool is gone", pools, () => pools.get({ name: "local" }) === undefined);
});
