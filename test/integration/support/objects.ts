/** Objects as users, kubelets and agents make them. */
import type { HostPool } from "../../../crds/host.ts";
import { AGENT_MANAGER, API_VERSION, BOOT_ID, agentLeaseName, poolResource } from "../../../crds/names.ts";
import { hosts, networks, storagePools } from "../../../crds/resources.ts";
import { resources, type KubeClient, type Node } from "../../../kube/index.ts";
import { NAMESPACE, OPERATOR_NAMESPACE } from "./cluster.ts";

export async function makeNetwork(client: KubeClient, name: string, namespace = NAMESPACE): Promise<void> {
  await client.create(networks, {
    apiVersion: API_VERSION,
    kind: "Network",
    metadata: { name, namespace },
    spec: { ipv4: { cidr: "10.10.0.0/24" } },
  });
}

export async function makePool(client: KubeClient, name: string, onLabels?: Record<string, string>): Promise<void> {
  await client.create(storagePools, {
    apiVersion: API_VERSION,
    kind: "StoragePool",
    metadata: { name },
    spec: {
      driver: "btrfs",
      source: { loop: { size: "8Gi" } },
      ...(onLabels === undefined ? {} : { nodeSelector: { matchLabels: onLabels } }),
    },
  });
}

/** What an agent says of its node's pools. */
export async function hostSays(client: KubeClient, node: string, pools: HostPool[], ready = true): Promise<void> {
  const object = { apiVersion: API_VERSION, kind: "Host", metadata: { name: node } };
  await client.apply(hosts, object, { manager: AGENT_MANAGER });
  const lastTransitionTime = new Date().toISOString();
  const status = ready ? ("True" as const) : ("False" as const);
  const conditions = [{ type: "Ready", status, reason: "StandIn", message: "", lastTransitionTime }];
  await client.apply(hosts, { ...object, status: { pools, conditions } }, { manager: AGENT_MANAGER, subresource: "status" });
}

/** A Node as its kubelet would make it. */
export async function makeNode(client: KubeClient, name: string, pool: string, gib: number): Promise<void> {
  await client.create(resources.nodes, { apiVersion: "v1", kind: "Node", metadata: { name } });
  await offerRoom(client, name, pool, gib);
  await nodeReady(client, name, true);
}

export async function offerRoom(client: KubeClient, name: string, pool: string, gib: number): Promise<void> {
  const room = { cpu: "16", memory: "64Gi", pods: "200", [poolResource(pool)]: String(gib) };
  await client.patchMerge<Node>(
    resources.nodes,
    { name },
    { status: { capacity: room, allocatable: room } },
    { subresource: "status" },
  );
}

export async function nodeReady(client: KubeClient, name: string, ready: boolean): Promise<void> {
  const condition = {
    type: "Ready",
    status: ready ? "True" : "Unknown",
    reason: ready ? "KubeletReady" : "NodeStatusUnknown",
    message: ready ? "kubelet is posting ready status" : "Kubelet stopped posting node status.",
    lastHeartbeatTime: new Date().toISOString(),
    lastTransitionTime: new Date().toISOString(),
  };
  await client.patchMerge<Node>(resources.nodes, { name }, { status: { conditions: [condition] } }, { subresource: "status" });
  // As the node lifecycle controller does; without it the API server keeps a new Node tainted.
  await client.patchMerge<Node>(resources.nodes, { name }, { spec: { taints: [] } });
}

/** A sign of life of a node's agent. */
export async function agentBeats(client: KubeClient, node: string, bootId: string): Promise<void> {
  const renewTime = new Date().toISOString().replace("Z", "000Z");
  const lease = {
    apiVersion: "coordination.k8s.io/v1",
    kind: "Lease",
    metadata: { namespace: OPERATOR_NAMESPACE, name: agentLeaseName(node), annotations: { [BOOT_ID]: bootId } },
    spec: { holderIdentity: "agent", leaseDurationSeconds: 60, renewTime },
  };
  await client.apply(resources.leases, lease, { manager: AGENT_MANAGER });
}

export const agentForgotten = (client: KubeClient, node: string): Promise<unknown> =>
  client.delete(resources.leases, { namespace: OPERATOR_NAMESPACE, name: agentLeaseName(node) });
