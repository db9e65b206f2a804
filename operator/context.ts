/** What every reconcile of the operator works with: caches, client, clock and settings. Made once per process, in main.ts. */
import type { Host } from "../crds/host.ts";
import type { Instance } from "../crds/instance.ts";
import { CLAIM_LABEL, CLAIMS_BUDGET, MIGRATION_LABEL } from "../crds/names.ts";
import type { Migration } from "../crds/migration.ts";
import type { Network } from "../crds/network.ts";
import type { Rollout } from "../crds/rollout.ts";
import type { StoragePool } from "../crds/pool.ts";
import { hosts, instances, migrations, networks, rollouts, storagePools } from "../crds/resources.ts";
import {
  Informer,
  resources,
  type Clock,
  type EventRecorder,
  type KubeClient,
  type KubeObject,
  type Lease,
  type Logger,
  type Node,
  type Pod,
  type PodDisruptionBudget,
} from "../kube/index.ts";
import { NOTE_ANNOTATIONS } from "./drain/notes.ts";
import { Heartbeats } from "./heartbeats.ts";
import { NamespaceCounts } from "./namespace-counts.ts";
import type { ClaimSettings } from "./instance/claim.ts";
import { HOLDER } from "./instance/facts.ts";
import { claimIndexes, hostIndexes, instanceIndexes, type IndexesOf } from "./indexes.ts";
import { migrationIndexes } from "./migration/indexes.ts";
import { nodeLife } from "./nodes.ts";
import { poolRoom, PublishedPools } from "./published-pools.ts";
import { Recent } from "./recent.ts";

export interface Caches {
  instances: Informer<Instance>;
  networks: Informer<Network>;
  pools: Informer<StoragePool>;
  hosts: Informer<Host>;
  nodes: Informer<Node>;
  /** Claim pods only. */
  claims: Informer<Pod>;
  /** `drover-claims` of every namespace. */
  budgets: Informer<PodDisruptionBudget>;
  migrations: Informer<Migration>;
  rollouts: Informer<Rollout>;
  /** Leases of the operator's own namespace: the agents' heartbeats. */
  leases: Informer<Lease>;
}

export interface OperatorContext extends Caches {
  client: KubeClient;
  log: Logger;
  clock: Clock;
  events: EventRecorder;
  settings: ClaimSettings;
  heartbeats: Heartbeats;
  /** Claims in each namespace. */
  claimCounts: NamespaceCounts;
  publishedPools: PublishedPools;
  /** Our own writes, until the caches show them. */
  recentInstances: Recent<Instance>;
  recentClaims: Recent<Pod>;
  recentMigrations: Recent<Migration>;
}

/** A copy of everything that kubectl applied, which nobody here reads. */
const LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration";

function slim<T extends KubeObject>(object: T): T {
  delete object.metadata.annotations?.[LAST_APPLIED];
  return object;
}

/** Of a claim only its place, its memory limit, its conditions, its owner, the Migration that made it, and whether it was asked to go matter. */
function slimPod(pod: Pod): Pod {
  const { labels = {}, annotations: all = {}, ...metadata } = pod.metadata;
  const migration = labels[MIGRATION_LABEL];
  const { nodeName } = pod.spec;
  const made = migration === undefined ? {} : { labels: { [MIGRATION_LABEL]: migration } };
  const notes = Object.entries(all).filter(([name]) => NOTE_ANNOTATIONS.includes(name));
  const asked = notes.length === 0 ? {} : { annotations: Object.fromEntries(notes) };
  const containers = pod.spec.containers.map(({ name, resources: amounts }) => {
    const memory = name === HOLDER ? amounts?.limits?.["memory"] : undefined;
    return memory === undefined ? { name } : { name, resources: { limits: { memory } } };
  });
  return { ...pod, metadata: { ...metadata, ...made, ...asked }, spec: { containers, nodeName } };
}

/** Of a Node only its readiness, its boot, its cordon and its pools matter; its status also lists every image it holds. */
function slimNode(node: Node): Node {
  const { annotations: _, ...metadata } = node.metadata;
  const conditions = node.status?.conditions?.filter(({ type }) => type === "Ready") ?? [];
  const bootID = node.status?.nodeInfo?.bootID;
  const status = { conditions, allocatable: poolRoom(node), ...(bootID === undefined ? {} : { nodeInfo: { bootID } }) };
  const { taints = [], unschedulable } = node.spec;
  return { ...node, metadata, spec: { taints, ...(unschedulable === true ? { unschedulable } : {}) }, status };
}

/**
 * All caches of the operator; not started.
 * @param namespace the operator's own
 * @param networkIndexes what the network's side asks the instances by
 */
export function makeCaches(
  client: KubeClient,
  { namespace, networkIndexes, logger }: { namespace: string; networkIndexes: IndexesOf<Instance>; logger: Logger },
): Caches {
  const common = { logger };
  return {
    instances: new Informer(client, instances, {
      ...common,
      transform: slim,
      indexes: { ...networkIndexes, ...instanceIndexes },
    }),
    networks: new Informer(client, networks, { ...common, transform: slim }),
    pools: new Informer(client, storagePools, { ...common, transform: slim }),
    hosts: new Informer(client, hosts, { ...common, indexes: hostIndexes }),
    nodes: new Informer(client, resources.nodes, { ...common, transform: slimNode }),
    claims: new Informer(client, resources.pods, {
      ...common,
      labelSelector: CLAIM_LABEL,
      indexes: claimIndexes,
      transform: slimPod,
    }),
    budgets: new Informer(client, resources.podDisruptionBudgets, {
      ...common,
      fieldSelector: `metadata.name=${CLAIMS_BUDGET}`,
    }),
    leases: new Informer(client, resources.leases, { ...common, namespace }),
    migrations: new Informer(client, migrations, { ...common, transform: slim, indexes: migrationIndexes }),
    rollouts: new Informer(client, rollouts, { ...common, transform: slim }),
  };
}

/** Ties the caches to what is derived from them. */
export function makeContext(
  parts: Caches & Pick<OperatorContext, "client" | "log" | "clock" | "events" | "settings">,
): OperatorContext {
  return {
    ...parts,
    heartbeats: new Heartbeats(parts.leases, parts.clock, (name) => nodeLife(parts.nodes.get({ name }))),
    claimCounts: new NamespaceCounts(parts.claims),
    publishedPools: new PublishedPools(parts.nodes),
    recentInstances: new Recent(parts.instances, parts.clock),
    recentClaims: new Recent(parts.claims, parts.clock),
    recentMigrations: new Recent(parts.migrations, parts.clock),
  };
}

const cacheList = (caches: Caches) => {
  const { instances: vms, networks: nets, pools, hosts: machines, nodes, claims, budgets, leases, migrations: moves } = caches;
  return [vms, nets, pools, machines, nodes, claims, budgets, leases, moves, caches.rollouts];
};

/** Starts all caches; resolves when each has been filled once, or the signal aborted. They end with the signal. */
export async function startCaches(caches: Caches, signal: AbortSignal): Promise<void> {
  const all = cacheList(caches);
  const aborted = new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
  for (const one of all) one.start(signal);
  await Promise.race([aborted, Promise.all(all.map(({ synced }) => synced))]);
}

/** Resources whose cache has not been filled yet. */
export const unsynced = (caches: Caches): string[] =>
  cacheList(caches)
    .filter(({ hasSynced }) => !hasSynced)
    .map(({ type }) => type.plural);
