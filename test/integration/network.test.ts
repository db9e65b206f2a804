/** Networks against a real API server, a real OVN central and ovn-northd; nodes are stand-ins. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Instance, InstanceSpec, NicStatus } from "../../crds/instance.ts";
import { API_VERSION } from "../../crds/names.ts";
import type { Network, NetworkSpec } from "../../crds/network.ts";
import { instances as instanceType, networks as networkType } from "../../crds/resources.ts";
import { findCondition, Informer, isTrue, type ObjectKey, realClock, resources, silentLogger } from "../../kube/index.ts";
import { makeCaches, startCaches } from "../../operator/context.ts";
import { migrationSettings } from "../../operator/migration/settings.ts";
import { instanceRows } from "../../operator/network/desired-instance.ts";
import { networkRows } from "../../operator/network/desired-network.ts";
import { networkFacts } from "../../operator/network/network-facts.ts";
import { Northbound } from "../../operator/network/northbound.ts";
import { instanceIndexes, networkSettings, setupNetworks } from "../../operator/network/index.ts";
import { runTerm } from "../../operator/term.ts";
import { asMap, OvsdbClient, parseRemote, type Replica } from "../../ovsdb/index.ts";
import { type Cluster, makeNode, makePool, NAMESPACE, NodeStandIn, startCluster, until } from "./operator-kit.ts";
import { OvnCentral } from "./ovn.ts";

let cluster: Cluster;
let ovn: OvnCentral;
let nodes: NodeStandIn;
let operator: { stop: () => Promise<void> };
let seenNetworks: Informer<Network>;
/** Everything in the northbound database, as somebody else sees it. */
let watcher: Replica;
const ended = new AbortController();

/** What an operator does is the same in each of its lives. */
const startOperator = async (): Promise<{ stop: () => Promise<void> }> => {
  const stop = new AbortController();
  const client = cluster.client.with({ userAgent: "drover-operator" });
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
    DROVER_OVN_TLS_DIR: ovn.directory,
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
  return {
    stop: async () => {
      stop.abort();
      await term;
    },
  };
};

beforeAll(async () => {
  [cluster, ovn] = await Promise.all([startCluster(), OvnCentral.start()]);
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
  seenNetworks = new Informer(cluster.client, networkType);
  seenNetworks.start(ended.signal);
  await seenNetworks.synced;
  const client = new OvsdbClient({
    remotes: [parseRemote(`unix:${ovn.nb.socket}`)],
    database: "OVN_Northbound",
    log: silentLogger,
  });
  watcher = client.monitor(Object.fromEntries(TABLES.map((table) => [table, {}])));
  client.start(ended.signal);
  await watcher.whenSynced();
  nodes = new NodeStandIn(cluster);
  operator = await startOperator();
});
afterAll(async () => {
  await operator?.stop();
  await nodes?.stop();
  ended.abort();
  await cluster?.stop();
  await ovn?.stop();
});

const TABLES = ["Logical_Router", "Logical_Router_Port", "Logical_Switch", "Logical_Switch_Port", "DHCP_Options", "DNS"];

const makeNetwork = (name: string, spec: Partial<NetworkSpec>): Promise<Network> =>
  cluster.client.create(networkType, {
    apiVersion: API_VERSION,
    kind: "Network",
    metadata: { name, namespace: NAMESPACE },
    spec,
  });

const makeInstance = (name: string, nics: InstanceSpec["nics"], node?: string): Promise<Instance> =>
  cluster.client.create(instanceType, {
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
      ...(node ? { placement: { nodeSelector: { "kubernetes.io/hostname": node } } } : {}),
    },
  });

const key = (name: string): ObjectKey => ({ namespace: NAMESPACE, name });
const network = (name: string): Network | undefined => seenNetworks.get(key(name));
const readyReason = (
  object: { status?: { conditions?: { type: string; reason: string }[] | undefined } } | undefined,
  type = "Ready",
) => findCondition(object?.status?.conditions, type)?.reason;
const networkReady = (name: string): Promise<Network> =>
  until(`network ${name} Ready`, seenNetworks, () => {
    const one = network(name);
    return isTrue(one?.status?.conditions, "Ready") ? one : undefined;
  });
const running = (name: string): Promise<Instance> =>
  until(`instance ${name} Ready`, cluster.seenInstances, () => {
    const one = cluster.seenInstances.get(key(name));
    return isTrue(one?.status?.conditions, "Ready") ? one : undefined;
  });
const nicOf = (instance: Instance): NicStatus => {
  const [nic] = instance.status?.nics ?? [];
  if (!nic) throw new Error(`${instance.metadata.name} has no NIC`);
  return nic;
};

/** Resolves when the northbound database is as the test wants it, as an outsider sees it. */
const northbound = (what: string, test: () => boolean): Promise<void> =>
  new Promise((resolve, reject) => {
    const deadline = setTimeout(() => reject(new Error(`not within 20 s: ${what}; there is\n${dump().join("\n")}`)), 20_000);
    const look = (): void => {
      if (!watcher.synced || !test()) return;
      clearTimeout(deadline);
      for (const off of offs) off();
      resolve();
    };
    const offs = [watcher.onChange(look), watcher.onSync(look)];
    look();
  });

/** Drover's rows as text without uuids, to compare one state with another. */
const dump = (): string[] => {
  const named = new Map<string, string>();
  const all = TABLES.flatMap((table) =>
    [...watcher.rows(table)].map(([id, row]) => ({ table, id, row, ids: asMap(row["external_ids"]) })),
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
};
const rowsOf = (uid: string): string[] =>
  dump().filter((line) => new RegExp(`drover-owner=(network|instance)/${uid}"`).test(line));
const hasPort = (port: string): boolean => dump().some((line) => line.startsWith(`Logical_Switch_Port name="${port}"`));

describe("a network and two instances on it", () => {
  let web: Instance;
  let db: Instance;
  let blue: Network;
  let datapath: string;
  beforeAll(async () => {
    await makeNetwork("blue", { ipv4: { cidr: "10.10.0.0/24", dhcp: true }, ipv6: { cidr: "fd42:10::/64", dhcp: true } });
    blue = await networkReady("blue");
    await makeInstance("web", [{ name: "eth0", network: "blue" }]);
    await makeInstance("db", [{ name: "eth0", network: "blue", ipv4: "10.10.0.20" }]);
    [web, db] = await Promise.all([running("web"), running("db")]);
    datapath = `${NAMESPACE}.blue.${blue.metadata.uid.slice(0, 8)}`;
  });
  const routerMac = async (): Promise<string> =>
    ovn.nbctl("get", "Logical_Router_Port", `${datapath}.router-port`, "mac").then((text) => text.replaceAll('"', ""));
  const from = (nic: NicStatus): string => `inport == "${nic.port}" && eth.src == ${nic.mac}`;

  it("are told in status", async () => {
    const counted = await until("two are counted", seenNetworks, () =>
      network("blue")?.status?.instances === 2 ? network("blue") : undefined,
    );
    expect(counted.status).toMatchObject({
      ipv4Gateway: "10.10.0.1",
      ipv6Gateway: "fd42:10::1",
      domain: "blue.team-a.internal",
      mtu: 1442,
    });
    expect(counted.metadata.finalizers).toEqual(["drover.dev/network"]);
    expect(nicOf(db)).toMatchObject({ ipv4: "10.10.0.20", mtu: 1442 });
  });

  it("have ports bound to their nodes", async () => {
    for (const instance of [web, db]) {
      expect(await ovn.nbctl("get", "Logical_Switch_Port", nicOf(instance).port, "options:requested-chassis")).toBe(
        instance.status?.nodeName,
      );
    }
  });

  it("reach each other", async () => {
    const [a, b] = [nicOf(web), nicOf(db)];
    const flow = `${from(a)} && eth.dst == ${b.mac} && ip4.src == ${a.ipv4} && ip4.dst == ${b.ipv4} && ip.ttl == 64 && icmp4.type == 8`;
    expect(await ovn.trace(datapath, flow)).toContain(`output("${b.port}")`);
    const six = `${from(a)} && eth.dst == ${b.mac} && ip6.src == ${a.ipv6} && ip6.dst == ${b.ipv6} && ip.ttl == 64 && icmp6.type == 128`;
    expect(await ovn.trace(datapath, six)).toContain(`output("${b.port}")`);
  });

  it("are routed by their gateway, back to the port that has the address", async () => {
    const [a, b] = [nicOf(web), nicOf(db)];
    const routed = `${from(a)} && eth.dst == ${await routerMac()} && ip4.src == ${a.ipv4} && ip4.dst == ${b.ipv4} && ip.ttl == 64 && tcp.dst == 80`;
    const trace = await ovn.trace(datapath, routed);
    expect(trace).toContain("ip.ttl--");
    expect(trace).toContain(`output("${b.port}")`);
    const gateway = `${from(a)} && eth.dst == ${await routerMac()} && ip4.src == ${a.ipv4} && ip4.dst == 10.10.0.1 && ip.ttl == 64 && icmp4.type == 8`;
    expect(await ovn.trace(datapath, gateway)).toContain(`output("${a.port}")`);
  });

  it("have their ARP and neighbour questions answered by OVN", async () => {
    const [a, b] = [nicOf(web), nicOf(db)];
    const question = `${from(a)} && eth.dst == ff:ff:ff:ff:ff:ff && arp.op == 1 && arp.sha == ${a.mac} && arp.spa == ${a.ipv4} && arp.tpa == ${b.ipv4}`;
    const trace = await ovn.trace(datapath, question);
    expect(trace).toContain(`eth.src = ${b.mac}`);
    expect(trace).toContain(`output("${a.port}")`);
  });

  it.each([
    [
      "another's IPv4 address",
      (a: NicStatus, b: NicStatus) =>
        `${from(a)} && eth.dst == ${b.mac} && ip4.src == 10.10.0.99 && ip4.dst == ${b.ipv4} && ip.ttl == 64`,
    ],
    [
      "another's IPv6 address",
      (a: NicStatus, b: NicStatus) =>
        `${from(a)} && eth.dst == ${b.mac} && ip6.src == fd42:10::99 && ip6.dst == ${b.ipv6} && ip.ttl == 64`,
    ],
    [
      "another's MAC",
      (a: NicStatus, b: NicStatus) =>
        `inport == "${a.port}" && eth.src == 52:54:00:99:99:99 && eth.dst == ${b.mac} && ip4.src == ${a.ipv4} && ip4.dst == ${b.ipv4} && ip.ttl == 64`,
    ],
    [
      "another's ARP",
      (a: NicStatus, b: NicStatus) =>
        `${from(a)} && eth.dst == ff:ff:ff:ff:ff:ff && arp.op == 2 && arp.sha == ${a.mac} && arp.spa == ${b.ipv4} && arp.tpa == ${b.ipv4}`,
    ],
  ])("cannot send from %s", async (_, flow) => {
    expect(await ovn.trace(datapath, flow(nicOf(web), nicOf(db)))).not.toContain("output(");
  });

  it("get their address, and all that belongs to it, by DHCP", async () => {
    const a = nicOf(web);
    const discover = `${from(a)} && eth.dst == ff:ff:ff:ff:ff:ff && ip4.src == 0.0.0.0 && ip4.dst == 255.255.255.255 && udp.src == 68 && udp.dst == 67 && ip.ttl == 64`;
    const trace = await ovn.traceFully(datapath, discover);
    const options = /put_dhcp_opts\([^)]*\)/.exec(trace)?.[0] ?? "";
    for (const part of [
      `offerip = ${a.ipv4}`,
      "router = 10.10.0.1",
      "dns_server = 10.10.0.1",
      'domain_name = "blue.team-a.internal"',
      'hostname = "web"',
      "mtu = 1442",
      "netmask = 255.255.255.0",
      "lease_time = 3600",
    ]) {
      expect(options).toContain(part);
    }
    const flows = await ovn.sbctl("lflow-list", datapath);
    const six = flows.split("\n").find((line) => line.includes("put_dhcpv6_opts") && line.includes(a.port)) ?? "";
    for (const part of [`ia_addr = ${a.ipv6}`, "dns_server = fd42:10::1", 'domain_search = "blue.team-a.internal"'])
      expect(six).toContain(part);
  });

  it("are told the router by advertisements", async () => {
    const flows = await ovn.sbctl("lflow-list", `${datapath}.router`);
    const answer = flows.split("\n").find((line) => line.includes("put_nd_ra_opts")) ?? "";
    for (const part of ['addr_mode = "dhcpv6_stateful"', "mtu = 1442", "prefix = fd42:10::/64"]) expect(answer).toContain(part);
  });

  it("have names that OVN answers for", async () => {
    const flows = await ovn.sbctl("lflow-list", datapath);
    expect(flows).toContain("dns_lookup()");
    const records = await ovn.sbctl("--bare", "--columns=records", "list", "DNS");
    const [a, b] = [nicOf(web), nicOf(db)];
    expect(records).toContain(`web.blue.team-a.internal=${a.ipv4} ${a.ipv6}`);
    expect(records).toContain(`db=${b.ipv4} ${b.ipv6}`);
    expect(records).toContain("20.0.10.10.in-addr.arpa=db.blue.team-a.internal");
  });

  it("are written once: a new operator finds nothing to do", async () => {
    const before = dump();
    await operator.stop();
    let changes = 0;
    const off = watcher.onChange((some) => {
      changes += some.length;
    });
    operator = await startOperator();
    // Something that the new operator certainly does last: it has then been through all of these.
    await makeNetwork("last", { ipv4: { cidr: "10.99.0.0/24", dhcp: true } });
    await networkReady("last");
    const made = changes;
    await cluster.client.delete(networkType, key("last"));
    await northbound("the last network is gone", () => dump().length === before.length);
    off();
    expect(made).toBeLessThanOrEqual(8); // five rows of "last", some told twice as they are linked
    expect(dump()).toEqual(before);
  });

  it("are put right when somebody meddles with them, and no other rows are touched", async () => {
    const before = dump();
    await ovn.nbctl(
      "ls-add",
      "theirs",
      "--",
      "lsp-add",
      "theirs",
      "their-port",
      "--",
      "set",
      "Logical_Switch",
      "theirs",
      "external_ids:owner=them",
    );
    await ovn.nbctl("lsp-add", datapath, "guest-of-ours");
    await ovn.nbctl("acl-add", datapath, "to-lport", "1000", "tcp.dst == 23", "drop");
    await ovn.nbctl("set", "Logical_Switch", datapath, "external_ids:theirs=too");
    // As a migration leaves it that died half way.
    await ovn.nbctl(
      "set",
      "Logical_Switch_Port",
      nicOf(web).port,
      "options:requested-chassis=n1,n2",
      "options:activation-strategy=rarp",
    );
    await northbound("the port is bound to its node alone", () => {
      const row = [...watcher.rows("Logical_Switch_Port").values()].find((one) => one["name"] === nicOf(web).port);
      return (
        asMap(row?.["options"]).get("requested-chassis") === web.status?.nodeName &&
        !asMap(row?.["options"]).has("activation-strategy")
      );
    });
    await ovn.nbctl("lsp-del", nicOf(db).port);
    await ovn.nbctl("--all", "destroy", "DHCP_Options");
    await northbound("all is back", () => rowsOf(db.metadata.uid).length === 2 && dump().length === before.length);
    expect(await ovn.nbctl("lsp-list", "theirs")).toContain("their-port");
    expect(await ovn.nbctl("get", "Logical_Switch", "theirs", "external_ids:owner")).toBe("them");
    expect(await ovn.nbctl("lsp-list", datapath)).toContain("guest-of-ours");
    expect(await ovn.nbctl("acl-list", datapath)).toContain("tcp.dst == 23");
    expect(await ovn.nbctl("get", "Logical_Switch", datapath, "external_ids:theirs")).toBe("too");
    await ovn.nbctl(
      "lsp-del",
      "guest-of-ours",
      "--",
      "acl-del",
      datapath,
      "--",
      "remove",
      "Logical_Switch",
      datapath,
      "external_ids",
      "theirs",
    );
    await northbound("it is as before", () => dump().join() === before.join());
  });

  it("are there again after the northbound database was emptied", async () => {
    const before = dump();
    expect(before.length).toBeGreaterThan(9);
    for (const table of ["Logical_Switch", "Logical_Router", "DHCP_Options", "DNS"]) await ovn.nbctl("--all", "destroy", table);
    await northbound("filled again", () => dump().join() === before.join());
    await ovn.loseNorthbound();
    await northbound("filled again after its file was lost", () => dump().join() === before.join());
    await ovn.synced();
    expect(await ovn.sbctl("--bare", "--columns=logical_port", "list", "Port_Binding")).toContain(nicOf(web).port);
  });

  it("a conflict is said, and heals when the other goes", async () => {
    await makeInstance("late", [{ name: "eth0", network: "blue", ipv4: "10.10.0.20" }]);
    const late = await until("the conflict is told", cluster.seenInstances, () => {
      const one = cluster.seenInstances.get(key("late"));
      return readyReason(one, "NetworkReady") === "AddressInUse" ? one : undefined;
    });
    expect(findCondition(late.status?.conditions, "NetworkReady")?.message).toBe(
      "nics[eth0]: ipv4 10.10.0.20 is in use by instance team-a/db; choose another ipv4 or leave it out",
    );
    await cluster.client.delete(instanceType, key("db"));
    expect(nicOf(await running("late")).ipv4).toBe("10.10.0.20");
    expect(rowsOf(db.metadata.uid)).toEqual([]);
  });

  it("the network stays while instances use it, and says which; then it goes, and leaves nothing", async () => {
    await cluster.client.delete(networkType, key("blue"));
    const stays = await until("InUse is told", seenNetworks, () =>
      readyReason(network("blue")) === "InUse" ? network("blue") : undefined,
    );
    expect(findCondition(stays.status?.conditions, "Ready")?.message).toBe(
      "it is deleted once no instance uses it: late, web; delete them",
    );
    for (const name of ["web", "late"]) await cluster.client.delete(instanceType, key(name));
    await until("the network is gone", seenNetworks, () => network("blue") === undefined);
    expect(dump()).toEqual([]);
  });
});

describe("bad days", () => {
  it("OVN away: said in conditions, tried again, recovered", async () => {
    await makeNetwork("calm", { ipv4: { cidr: "10.11.0.0/24", dhcp: true } });
    await networkReady("calm");
    await ovn.nb.stop("SIGKILL");
    await makeNetwork("away", { ipv4: { cidr: "10.12.0.0/24", dhcp: true } });
    const away = await until("OVNUnreachable is told", seenNetworks, () =>
      readyReason(network("away")) === "OVNUnreachable" ? network("away") : undefined,
    );
    expect(findCondition(away.status?.conditions, "Ready")?.message).toMatch(
      /^OVN's northbound database cannot be reached: .*; it is tried again$/,
    );
    await makeInstance("patient", [{ name: "eth0", network: "away" }]);
    await until("the instance says so too", cluster.seenInstances, () =>
      readyReason(cluster.seenInstances.get(key("patient")), "NetworkReady") === "OVNUnreachable" ? true : undefined,
    );
    // What stands in OVN already is not called into question, however often it is looked at.
    await cluster.client.patchMerge(networkType, key("calm"), { metadata: { labels: { touched: "yes" } } });
    await cluster.client.patchMerge(networkType, key("away"), { metadata: { labels: { touched: "yes" } } });
    await until("the touch is seen", seenNetworks, () => network("away")?.metadata.labels?.["touched"] === "yes");
    expect(readyReason(network("calm"))).toBe("Programmed");
    await ovn.nb.start();
    await Promise.all([networkReady("away"), running("patient")]);
    const { port } = nicOf(await running("patient"));
    await northbound("its port is there", () => hasPort(port));
  });

  it("an object whose finalizer was taken away by force leaves no rows", async () => {
    const away = network("away");
    const patient = cluster.seenInstances.get(key("patient"));
    await cluster.client.patchMerge(instanceType, key("patient"), { metadata: { finalizers: [] } });
    await cluster.client.delete(instanceType, key("patient"));
    await northbound("the instance's rows are gone", () => rowsOf(patient?.metadata.uid ?? "").length === 0);
    await operator.stop();
    await cluster.client.patchMerge(networkType, key("away"), { metadata: { finalizers: [] } });
    await cluster.client.delete(networkType, key("away"));
    expect(rowsOf(away?.metadata.uid ?? "")).not.toEqual([]);
    operator = await startOperator();
    await northbound("the network's rows are gone", () => rowsOf(away?.metadata.uid ?? "").length === 0);
  });

  it("a name that somebody else has in OVN is said, and heals", async () => {
    await makeNetwork("clash", { ipv4: { cidr: "10.13.0.0/24", dhcp: true } });
    await networkReady("clash");
    const instance = await makeInstance("clashing", [{ name: "eth0", network: "clash" }]);
    const port = `${NAMESPACE}.clashing.eth0.${instance.metadata.uid.slice(0, 8)}`;
    const bound = await running("clashing");
    expect(nicOf(bound).port).toBe(port);
    // Theirs, under our name, on a switch of theirs.
    await ovn.nbctl("lsp-del", port, "--", "--may-exist", "ls-add", "theirs", "--", "lsp-add", "theirs", port);
    const told = await until("the refusal is told", cluster.seenInstances, () => {
      const one = cluster.seenInstances.get(key("clashing"));
      return readyReason(one, "NetworkReady") === "PortRefused" ? one : undefined;
    });
    expect(findCondition(told.status?.conditions, "NetworkReady")?.message).toMatch(/refused its ports: .*constraint violation/);
    await ovn.nbctl("lsp-del", port);
    await running("clashing");
    await northbound("the port is ours", () => hasPort(port));
  });
});

describe("many", () => {
  it("ports cost the same however many there are", async () => {
    const stop = new AbortController();
    const client = new OvsdbClient({
      remotes: [parseRemote(`unix:${ovn.nb.socket}`)],
      database: "OVN_Northbound",
      log: silentLogger,
    });
    const many = new Northbound({ client, scope: "many", log: silentLogger });
    client.start(stop.signal);
    await many.ready();
    const facts = networkFacts({
      apiVersion: API_VERSION,
      kind: "Network",
      metadata: {
        name: "many",
        namespace: NAMESPACE,
        uid: "many0000",
        resourceVersion: "1",
        generation: 1,
        creationTimestamp: "2026-01-01T00:00:00Z",
      },
      spec: { ipv4: { cidr: "10.32.0.0/16", dhcp: true }, ipv6: { cidr: "fd42:32::/64", dhcp: true } },
    });
    await many.apply("network/many0000", facts.key, () => networkRows(facts, { mtu: 1442 }));
    const add = async (n: number): Promise<void> => {
      const nic: NicStatus = {
        name: "eth0",
        network: "many",
        mac: `52:54:01:00:${(n >> 8).toString(16).padStart(2, "0")}:${(n & 255).toString(16).padStart(2, "0")}`,
        ipv4: `10.32.${1 + (n >> 8)}.${n & 255}`,
        ipv6: `fd42:32::${n.toString(16)}:1`,
        port: `${NAMESPACE}.i${n}.eth0.u`,
        mtu: 1442,
      };
      const rows = () =>
        instanceRows({
          uid: `u${n}`,
          name: `i${n}`,
          chassis: ["n1"],
          nics: [{ nic, network: facts }],
          dnsOptions: many.dnsOptions,
        });
      await many.apply(`instance/u${n}`, `${NAMESPACE}/i${n}`, rows);
    };
    const batch = async (from: number, count: number): Promise<number> => {
      const began = performance.now();
      const lane = async (start: number): Promise<void> => {
        for (let n = start; n < from + count; n += 8) await add(n);
      };
      await Promise.all(Array.from({ length: 8 }, (_, lanes) => lane(from + lanes)));
      return count / ((performance.now() - began) / 1000);
    };
    const first = await batch(0, 250);
    await batch(250, 500);
    const last = await batch(750, 250);
    console.log(`instances' rows a second: ${Math.round(first)} the first 250, ${Math.round(last)} the last 250 of 1000`);
    expect(last).toBeGreaterThan(50);
    const writes: unknown[] = [];
    const again = performance.now();
    const off = watcher.onChange((changes) => writes.push(...changes));
    for (let n = 0; n < 1000; n += 1) await add(n);
    console.log(`1000 looked at again in ${Math.round(performance.now() - again)} ms`);
    off();
    expect(writes).toEqual([]);
    await Promise.all(
      many
        .owners()
        .filter(([owner]) => owner.startsWith("instance/"))
        .map(([owner, name]) => many.apply(owner, name, () => [])),
    );
    await many.apply("network/many0000", facts.key, () => []);
    expect(many.owners()).toEqual([]);
    stop.abort();
  });
});
