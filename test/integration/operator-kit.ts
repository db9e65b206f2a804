/** A real API server and scheduler, with stand-ins for what a node and OVN would do. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parse } from "yaml";
import type { HostPool } from "../../crds/host.ts";
import type { GuestStatus, Instance, NicStatus } from "../../crds/instance.ts";
import { AGENT_MANAGER, API_VERSION, BOOT_ID, CLAIM_LABEL, agentLeaseName, poolResource, portName } from "../../crds/names.ts";
import type { Network } from "../../crds/network.ts";
import { hosts, instances, networks, storagePools } from "../../crds/resources.ts";
import { startLocalControlPlane, type LocalControlPlane } from "../../hack/control-plane/local.ts";
import {
  Informer,
  KubeClient,
  keyOf,
  keyText,
  realClock,
  resource,
  resources,
  silentLogger,
  type CustomResourceDefinition,
  type KubeObject,
  type Node,
  type ObjectKey,
  type Pod,
} from "../../kube/index.ts";
import { makeCaches, startCaches, type OperatorContext } from "../../operator/context.ts";
import { migrationSettings, type MigrationSettings } from "../../operator/migration/settings.ts";
import { runTerm, type NetworkTerm } from "../../operator/term.ts";

export const NAMESPACE = "team-a";
const OPERATOR_NAMESPACE = "drover-system";
const serviceAccounts = resource<KubeObject>("", "v1", "serviceaccounts", "ServiceAccount");
const priorityClasses = resource<KubeObject>("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", false);

/** Resolves with the first truthy answer; asked again at every change of the cache. */
export function until<T extends KubeObject, R>(
  what: string,
  informer: Informer<T>,
  ask: () => R | undefined | false,
  deadlineMs = 20_000,
): Promise<R> {
  return new Promise((resolve, reject) => {
    let unwatch: () => void = () => undefined;
    const timer = setTimeout(() => {
      unwatch();
      reject(new Error(`not within ${deadlineMs} ms: ${what}; there is ${JSON.stringify(informer.list()).slice(-3000)}`));
    }, deadlineMs);
    const look = () => {
      const answer = ask();
      if (answer === undefined || answer === false) return;
      clearTimeout(timer);
      queueMicrotask(() => unwatch());
      resolve(answer);
    };
    unwatch = informer.onChange(look);
    look();
  });
}

export interface Cluster {
  plane: LocalControlPlane;
  client: KubeClient;
  seenInstances: Informer<Instance>;
  seenPods: Informer<Pod>;
  auditLog: string;
  stop(): Promise<void>;
}

const AUDIT_POLICY = {
  apiVersion: "audit.k8s.io/v1",
  kind: "Policy",
  omitStages: ["RequestReceived"],
  rules: [{ level: "Metadata", verbs: ["create", "update", "patch", "delete"] }, { level: "None" }],
};

async function auditFiles(): Promise<{ directory: string; policyFile: string; logFile: string }> {
  const directory = await mkdtemp(path.join(tmpdir(), "drover-audit-"));
  const policyFile = path.join(directory, "policy.json");
  await writeFile(policyFile, JSON.stringify(AUDIT_POLICY));
  return { directory, policyFile, logFile: path.join(directory, "audit.log") };
}

interface AuditEntry {
  verb: string;
  userAgent: string;
  objectRef?: { resource: string; subresource?: string; name?: string };
  responseStatus?: { code: number };
}

/** What the API server says that a program wrote about objects whose name begins so: `verb resource/subresource code`, in order. */
export async function writesOf(cluster: Cluster, userAgent: string, name: RegExp): Promise<string[]> {
  const lines = (await readFile(cluster.auditLog, "utf8")).trim().split("\n");
  return lines
    .map((line) => JSON.parse(line) as AuditEntry)
    .filter((entry) => entry.userAgent === userAgent && name.test(entry.objectRef?.name ?? ""))
    .map(({ verb, objectRef, responseStatus }) => {
      const where = [objectRef?.resource, objectRef?.subresource].filter((part) => part !== undefined).join("/");
      return `${verb} ${where} ${responseStatus?.code}`;
    });
}

async function applyCrds(client: KubeClient): Promise<void> {
  const crds = new Informer(client, resources.customResourceDefinitions);
  const ended = new AbortController();
  crds.start(ended.signal);
  for (const plural of ["instances", "networks", "storagepools", "hosts", "migrations"]) {
    const file = fileURLToPath(new URL(`../../crds/generated/${plural}.yaml`, import.meta.url));
    const crd = parse(await readFile(file, "utf8")) as CustomResourceDefinition;
    await client.create(resources.customResourceDefinitions, crd);
    await until(`CRD ${plural} is served`, crds, () =>
      crds
        .get({ name: crd.metadata.name })
        ?.status?.conditions?.some(({ type, status }) => type === "Established" && status === "True"),
    );
  }
  ended.abort();
  await crds.stopped();
}

export async function makeNamespace(client: KubeClient, name: string): Promise<void> {
  await client.create(resources.namespaces, { apiVersion: "v1", kind: "Namespace", metadata: { name } });
  // The controller-manager, which would make it, does not run.
  await client.create(serviceAccounts, {
    apiVersion: "v1",
    kind: "ServiceAccount",
    metadata: { name: "default", namespace: name },
  });
}

/** etcd, API server, scheduler; Drover's CRDs, namespaces and the claims' PriorityClass. */
export async function startCluster(): Promise<Cluster> {
  const audit = await auditFiles();
  const plane = await startLocalControlPlane({ scheduler: {}, apiserver: { audit } });
  const client = KubeClient.fromKubeconfig(await readFile(plane.kubeconfig, "utf8"), { userAgent: "drover-test" });
  await applyCrds(client);
  for (const name of [NAMESPACE, OPERATOR_NAMESPACE]) await makeNamespace(client, name);
  await client.create(priorityClasses, {
    apiVersion: "scheduling.k8s.io/v1",
    kind: "PriorityClass",
    metadata: { name: "drover-claim" },
    value: 1_000_000,
  } as KubeObject);
  const seenInstances = new Informer(client, instances);
  const seenPods = new Informer(client, resources.pods, { labelSelector: CLAIM_LABEL });
  const ended = new AbortController();
  for (const one of [seenInstances, seenPods]) one.start(ended.signal);
  await Promise.all([seenInstances.synced, seenPods.synced]);
  const stop = async () => {
    ended.abort();
    await Promise.all([seenInstances.stopped(), seenPods.stopped()]);
    await plane.stop();
    await rm(audit.directory, { recursive: true, force: true });
  };
  return { plane, client, seenInstances, seenPods, auditLog: audit.logFile, stop };
}

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

/** Kubelet and agent of all nodes: claims run when bound and end when deleted, guests do as they are asked. */
export class NodeStandIn {
  readonly #client: KubeClient;
  readonly #cluster: Cluster;
  readonly #busy = new Map<string, Promise<void>>();
  readonly #unwatch: (() => void)[] = [];
  /** Nodes that do nothing at present. */
  readonly silent = new Set<string>();
  /** Set to have guests fail, or anything else than run. */
  guestFor: (instance: Instance) => Partial<GuestStatus> = () => ({});
  /** Instances that a move's agents hold: nothing is started, stopped or said of them. */
  isHeld: (instance: Instance) => boolean = () => false;
  failures: unknown[] = [];

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
    this.#client = cluster.client;
    this.#unwatch.push(
      cluster.seenInstances.onChange(({ key }) => this.#queue(`i/${keyText(key)}`, () => this.#agent(key))),
      cluster.seenPods.onChange(({ key }) => this.#queue(`p/${keyText(key)}`, () => this.#kubelet(key))),
    );
  }

  /** Looks at everything again, as a node does that comes back. */
  lookAgain(): void {
    for (const one of this.#cluster.seenInstances.list()) this.#queue(`i/${keyText(keyOf(one))}`, () => this.#agent(keyOf(one)));
    for (const one of this.#cluster.seenPods.list()) this.#queue(`p/${keyText(keyOf(one))}`, () => this.#kubelet(keyOf(one)));
  }

  async stop(): Promise<void> {
    for (const unwatch of this.#unwatch) unwatch();
    await Promise.all(this.#busy.values());
  }

  #queue(key: string, act: () => Promise<void>): void {
    const before = this.#busy.get(key) ?? Promise.resolve();
    const next = before.then(act).catch((error: unknown) => void this.failures.push(error));
    this.#busy.set(key, next);
  }

  async #say(instance: Instance, guest: GuestStatus): Promise<void> {
    const { name, namespace, uid } = instance.metadata;
    const { apiVersion, kind } = instance;
    await this.#client.apply(
      instances,
      { apiVersion, kind, metadata: { name, namespace, uid }, status: { guest } },
      { manager: AGENT_MANAGER, subresource: "status" },
    );
  }

  async #agent(key: ObjectKey): Promise<void> {
    const instance = this.#cluster.seenInstances.get(key);
    const node = instance?.status?.nodeName;
    if (instance === undefined || node === undefined || this.silent.has(node) || this.isHeld(instance)) return;
    const { claim, guest, nics = [] } = instance.status ?? {};
    if (instance.metadata.deletionTimestamp !== undefined) {
      if (guest?.state !== "Released") await this.#say(instance, { state: "Released", claimUid: guest?.claimUid });
      return;
    }
    if (claim?.uid === undefined) return;
    const pod = this.#cluster.seenPods.get({ namespace: key.namespace, name: claim.name });
    const here = pod?.metadata.uid === claim.uid && pod.metadata.deletionTimestamp === undefined;
    const want = instance.spec.power === "Stopped" ? "Stopped" : here ? "Running" : "Failed";
    if (guest?.claimUid === claim.uid && guest.state === want) return;
    if (guest?.claimUid === claim.uid && guest.state === "Stopped" && want === "Failed") return;
    const machine = { accelerator: "TCG" as const, machineType: "pc-q35-10.0", cpuModel: "qemu64-v1", qemuVersion: "10.0.2" };
    const made = { image: { ready: true }, disks: { ready: true }, ...machine };
    const taps = nics.map(({ name }) => ({ name, tap: "d0", installed: want === "Running" }));
    await this.#say(instance, { state: want, claimUid: claim.uid, ...made, nics: taps, ...this.guestFor(instance) });
  }

  async #kubelet(key: ObjectKey): Promise<void> {
    const pod = this.#cluster.seenPods.get(key);
    const owner = pod?.metadata.ownerReferences?.[0]?.name;
    // The agent, too, watches claims.
    if (owner !== undefined)
      this.#queue(`i/${key.namespace}/${owner}`, () => this.#agent({ namespace: key.namespace, name: owner }));
    if (pod?.spec.nodeName === undefined || this.silent.has(pod.spec.nodeName)) return;
    const { uid } = pod.metadata;
    if (pod.metadata.deletionTimestamp !== undefined) {
      await this.#client.delete(resources.pods, key, { uid, gracePeriodSeconds: 0 });
      return;
    }
    if (pod.status?.phase !== "Pending") return;
    const status = {
      phase: "Running",
      containerStatuses: [{ name: "holder", ready: true, restartCount: 0, image: "h", imageID: "h" }],
    };
    await this.#client.patchMerge<Pod>(resources.pods, key, { metadata: { uid }, status }, { subresource: "status" });
  }
}

/** Gives addresses and counts ports; keeps, as OVN does, what it was given when the operator dies. */
export class NetworkStandIn {
  readonly ports = new Map<string, string>();
  #next = 2;

  term = (ctx: OperatorContext): NetworkTerm => {
    const given = new Map<string, NicStatus[]>();
    const missing = (instance: Instance): string | undefined =>
      instance.spec.nics?.find(
        ({ network }) => ctx.networks.get({ namespace: instance.metadata.namespace, name: network }) === undefined,
      )?.network;
    const assign = (instance: Instance): NicStatus[] =>
      (instance.spec.nics ?? []).map(({ name, network }) => {
        const { namespace = "", uid } = instance.metadata;
        const last = this.#next++;
        const mac = `52:54:00:00:00:${last.toString(16).padStart(2, "0")}`;
        return {
          name,
          network,
          mac,
          ipv4: `10.10.0.${last}`,
          port: portName(namespace, instance.metadata.name, name, uid),
          mtu: 1442,
        };
      });
    return {
      addresses: {
        assign: (instance) => {
          const name = missing(instance);
          if (name !== undefined)
            return { problem: { reason: "NetworkNotFound", message: `there is no Network ${name}; make it` } };
          const { uid } = instance.metadata;
          const nics = instance.status?.nics ?? given.get(uid) ?? assign(instance);
          given.set(uid, nics);
          return { nics };
        },
        release: (uid) => void given.delete(uid),
      },
      ports: {
        ensurePorts: async (instance, opts) => {
          this.ports.set(instance.metadata.uid, (opts?.chassis ?? []).join(","));
          return { ready: true };
        },
        removePorts: async (instance) => void this.ports.delete(instance.metadata.uid),
      },
      onInstance: (fn) =>
        ctx.networks.onChange(({ key }: { key: ObjectKey; now?: Network }) => {
          for (const instance of ctx.instances.byIndex("network", keyText(key))) fn(keyOf(instance));
        }),
      start: (signal) => new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true })),
    };
  };
}

export interface RunningOperator {
  /** Resolves when it was killed by `killBeforeWrite`. */
  killed: Promise<void>;
  stop(): Promise<void>;
}

/** An operator in this process, with caches of its own. From its nth write on it does nothing any more, as if killed. */
export async function startOperator(
  cluster: Cluster,
  network: NetworkStandIn,
  options: { killBeforeWrite?: number; migration?: MigrationSettings } = {},
): Promise<RunningOperator> {
  const ended = new AbortController();
  let writes = 0;
  let dead = false;
  let die: () => void = () => undefined;
  const killed = new Promise<void>((resolve) => {
    die = resolve;
  });
  const guard = () => {
    if (dead || writes >= (options.killBeforeWrite ?? Number.POSITIVE_INFINITY)) {
      dead = true;
      die();
      throw new Error("this operator is dead");
    }
    writes += 1;
  };
  const client = cluster.client.with({ guard, userAgent: "drover-operator" });
  const networkIndexes = {
    network: (one: Instance) => (one.spec.nics ?? []).map((nic) => `${one.metadata.namespace}/${nic.network}`),
  };
  const caches = makeCaches(client, { namespace: OPERATOR_NAMESPACE, networkIndexes, logger: silentLogger });
  await startCaches(caches, ended.signal);
  const settings = {
    holderImage: "drover/holder:test",
    holderPullPolicy: "IfNotPresent" as const,
    cpuOvercommit: 4,
    priorityClassName: "drover-claim",
  };
  const migration = options.migration ?? migrationSettings("{}");
  const term = runTerm(
    { client, caches, log: silentLogger, clock: realClock, identity: "test", settings, migration, network: network.term },
    ended.signal,
  );
  const stop = async () => {
    ended.abort();
    await term;
    dead = true;
  };
  return { killed, stop };
}
