/** The operator's networks on a real API server, a real OVN central and ovn-northd; nodes are stand-ins. */
import type { Instance, InstanceSpec, NicStatus } from "../../crds/instance.ts";
import { API_VERSION } from "../../crds/names.ts";
import type { Network, NetworkSpec } from "../../crds/network.ts";
import { instances as instanceType, networks as networkType } from "../../crds/resources.ts";
import { findCondition, Informer, isTrue, type ObjectKey, realClock, resources, silentLogger } from "../../kube/index.ts";
import { makeCaches, startCaches } from "../../operator/context.ts";
import { migrationSettings } from "../../operator/migration/settings.ts";
import { instanceIndexes, networkSettings, setupNetworks } from "../../operator/network/index.ts";
import { runTerm } from "../../operator/term.ts";
import { asMap, OvsdbClient, parseRemote, type Replica } from "../../ovsdb/index.ts";
import { type Cluster, makeNode, makePool, NAMESPACE, NodeStandIn, startCluster, until } from "./operator-kit.ts";
import { OvnCentral } from "./ovn.ts";

const TABLES = ["Logical_Router", "Logical_Router_Port", "Logical_Switch", "Logical_Switch_Port", "DHCP_Options", "DNS"];

export const key = (name: string): ObjectKey => ({ namespace: NAMESPACE, name });

export const readyReason = (
  object: { status?: { conditions?: { type: string; reason: string }[] | undefined } } | undefined,
  type = "Ready",
) => findCondition(object?.status?.conditions, type)?.reason;

export const nicOf = (instance: Instance): NicStatus => {
  const [nic] = instance.status?.nics ?? [];
  if (!nic) throw new Error(`${instance.metadata.name} has no NIC`);
  return nic;
};

/** A client of the northbound database beside the operator's. */
export const northboundClient = (ovn: OvnCentral): OvsdbClient =>
  new OvsdbClient({ remotes: [parseRemote(`unix:${ovn.nb.socket}`)], database: "OVN_Northbound", log: silentLogger });

interface Running {
  stop: () => Promise<void>;
}

export class NetworkWorld {
  readonly cluster: Cluster;
  readonly ovn: OvnCentral;
  readonly networks: Informer<Network>;
  /** Everything in the northbound database, as somebody else sees it. */
  readonly watcher: Replica;
  readonly #nodes: NodeStandIn;
  readonly #ended = new AbortController();
  #operator: Running | undefined;

  private constructor(cluster: Cluster, ovn: OvnCentral) {
    this.cluster = cluster;
    this.ovn = ovn;
    this.networks = new Informer(cluster.client, networkType);
    const client = northboundClient(ovn);
    this.watcher = client.monitor(Object.fromEntries(TABLES.map((table) => [table, {}])));
    client.start(this.#ended.signal);
    this.#nodes = new NodeStandIn(cluster);
  }

  static async start(): Promise<NetworkWorld> {
    const [cluster, ovn] = await Promise.all([startCluster(), OvnCentral.start()]);
    // As the endpoint controller writes it for the chart's Service: found by it, over TLS, checked by name.
    await cluster.client.create(resources.endpointSlices, {
      apiVersion: "discovery.k8s.io/v1",
      kind: "EndpointSlice",
      metadata: { name: "ovn-central-1", namespace: "drover-system", labels: { "kubernetes.io/service-name": "ovn-central" } },
      addressType: "IPv4",
      endpoints: [{ addresses: [ovn.tls.host], conditions: { ready: true } }],
      ports: [{ name: "nb", port: ovn.tls.port, protocol: "TCP" }],
    });
    await makePool(cluster.client, "local");
    await makeNode(cluster.client, "n1", "local", 100);
    await makeNode(cluster.client, "n2", "local", 100);
    const world = new NetworkWorld(cluster, ovn);
    world.networks.start(world.#ended.signal);
    await world.networks.synced;
    await world.watcher.whenSynced();
    await world.startOperator();
    return world;
  }

  async stop(): Promise<void> {
    await this.stopOperator();
    await this.#nodes.stop();
    this.#ended.abort();
    await this.cluster.stop();
    await this.ovn.stop();
  }

  /** What an operator does is the same in each of its lives. */
  async startOperator(): Promise<void> {
    const stop = new AbortController();
    const client = this.cluster.client.with({ userAgent: "drover-operator" });
    const caches = makeCaches(client, { namespace: "drover-system", networkIndexes: instanceIndexes, logger: silentLogger });
    await startCaches(caches, stop.signal);
    const settings = {
      holderImage: "h",
      holderPullPolicy: "IfNotPresent" as const,
      cpuOvercommit: 4,
      priorityClassName: "drover-claim",
    };
    const environment = {
      DROVER_OVN_NAMESPACE: "drover-system",
      DROVER_OVN_SERVICE: "ovn-central",
      DROVER_OVN_TLS_DIR: this.ovn.directory,
    };
    const term = runTerm(
      {
        client,
        caches,
        log: silentLogger,
        clock: realClock,
        identity: "test",
        settings,
        migration: migrationSettings("{}"),
        network: (ctx) => setupNetworks(ctx, networkSettings(environment)),
      },
      stop.signal,
    );
    this.#operator = {
      stop: async () => {
        stop.abort();
        await term;
      },
    };
  }

  async stopOperator(): Promise<void> {
    await this.#operator?.stop();
    this.#operator = undefined;
  }

  makeNetwork(name: string, spec: Partial<NetworkSpec>): Promise<Network> {
    return this.cluster.client.create(networkType, {
      apiVersion: API_VERSION,
      kind: "Network",
      metadata: { name, namespace: NAMESPACE },
      spec,
    });
  }

  makeInstance(name: string, nics: InstanceSpec["nics"]): Promise<Instance> {
    return this.cluster.client.create(instanceType, {
      apiVersion: API_VERSION,
      kind: "Instance",
      metadata: { name, namespace: NAMESPACE },
      spec: {
        type: "VirtualMachine",
        image: { url: "http://images.example/tiny.qcow2", checksum: `sha256:${"0".repeat(64)}` },
        cpu: 1,
        memory: "256Mi",
        rootDisk: { pool: "local", size: "1Gi" },
        nics,
      },
    });
  }

  network(name: string): Network | undefined {
    return this.networks.get(key(name));
  }

  networkReady(name: string): Promise<Network> {
    return until(`network ${name} Ready`, this.networks, () => {
      const one = this.network(name);
      return isTrue(one?.status?.conditions, "Ready") ? one : undefined;
    });
  }

  running(name: string): Promise<Instance> {
    return until(`instance ${name} Ready`, this.cluster.seenInstances, () => {
      const one = this.cluster.seenInstances.get(key(name));
      return isTrue(one?.status?.conditions, "Ready") ? one : undefined;
    });
  }

  /** Resolves when the northbound database is as the test wants it, as an outsider sees it. */
  northbound(what: string, test: () => boolean): Promise<void> {
    const { watcher } = this;
    return new Promise((resolve, reject) => {
      const late = () => reject(new Error(`not within 20 s: ${what}; there is\n${this.dump().join("\n")}`));
      const deadline = setTimeout(late, 20_000);
      const look = (): void => {
        if (!watcher.synced || !test()) return;
        clearTimeout(deadline);
        for (const off of offs) off();
        resolve();
      };
      const offs = [watcher.onChange(look), watcher.onSync(look)];
      look();
    });
  }

  /** Drover's rows as text without uuids, to compare one state with another. */
  dump(): string[] {
    const named = new Map<string, string>();
    const all = TABLES.flatMap((table) =>
      [...this.watcher.rows(table)].map(([id, row]) => ({ table, id, row, ids: asMap(row["external_ids"]) })),
    );
    for (const { id, ids } of all) named.set(id, `<${ids.get("drover-owner") ?? "foreign"} ${ids.get("drover-role") ?? id}>`);
    const name = (json: string): string =>
      json.replaceAll(
        /\{"uuid":"([^"]+)"\}|[0-9a-f]{8}-[0-9a-f-]{27}(?=")/g,
        (match: string, id: string | undefined) => named.get(id ?? match) ?? match,
      );
    const text = (value: unknown): string => {
      const parts = value instanceof Map ? [...value].map((pair) => pair.join("=")) : Array.isArray(value) ? value : [value];
      return parts
        .map((part) => name(JSON.stringify(part)))
        .sort()
        .join(",");
    };
    return all
      .filter(({ ids }) => ids.has("drover-owner"))
      .map(({ table, row }) => {
        const columns = Object.entries(row).filter(([column]) => !["_uuid", "_version", "up", "tag"].includes(column));
        return `${table} ${columns.map(([column, value]) => `${column}=${text(value)}`).join(" ")}`;
      })
      .sort();
  }

  rowsOf(uid: string): string[] {
    return this.dump().filter((line) => new RegExp(`drover-owner=(network|instance)/${uid}"`).test(line));
  }

  hasPort(port: string): boolean {
    return this.dump().some((line) => line.startsWith(`Logical_Switch_Port name="${port}"`));
  }
}
