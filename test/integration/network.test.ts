/** What a network and its instances get in OVN: against a real API server, a real OVN central and ovn-northd. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Instance, NicStatus } from "../../crds/instance.ts";
import type { Network } from "../../crds/network.ts";
import { instances as instanceType, networks as networkType } from "../../crds/resources.ts";
import { findCondition } from "../../kube/index.ts";
import { asMap } from "../../ovsdb/index.ts";
import { key, NetworkWorld, nicOf, readyReason } from "./network-kit.ts";
import { NAMESPACE, until } from "./operator-kit.ts";

let world: NetworkWorld;

beforeAll(async () => {
  world = await NetworkWorld.start();
});
afterAll(() => world?.stop());

describe("a network and two instances on it", () => {
  let web: Instance;
  let db: Instance;
  let blue: Network;
  let datapath: string;
  beforeAll(async () => {
    await world.makeNetwork("blue", { ipv4: { cidr: "10.10.0.0/24", dhcp: true }, ipv6: { cidr: "fd42:10::/64", dhcp: true } });
    blue = await world.networkReady("blue");
    // The one that names its address first: the other might be given just that.
    await world.makeInstance("db", [{ name: "eth0", network: "blue", ipv4: "10.10.0.20" }]);
    await world.makeInstance("web", [{ name: "eth0", network: "blue" }]);
    [web, db] = await Promise.all([world.running("web"), world.running("db")]);
    datapath = `${NAMESPACE}.blue.${blue.metadata.uid.slice(0, 8)}`;
  });
  const routerMac = async (): Promise<string> =>
    world.ovn.nbctl("get", "Logical_Router_Port", `${datapath}.router-port`, "mac").then((text) => text.replaceAll('"', ""));
  const from = (nic: NicStatus): string => `inport == "${nic.port}" && eth.src == ${nic.mac}`;

  it("are told in status", async () => {
    const counted = await until("two are counted", world.networks, () =>
      world.network("blue")?.status?.instances === 2 ? world.network("blue") : undefined,
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
      expect(await world.ovn.nbctl("get", "Logical_Switch_Port", nicOf(instance).port, "options:requested-chassis")).toBe(
        instance.status?.nodeName,
      );
    }
  });

  it("reach each other", async () => {
    const [a, b] = [nicOf(web), nicOf(db)];
    const flow = `${from(a)} && eth.dst == ${b.mac} && ip4.src == ${a.ipv4} && ip4.dst == ${b.ipv4} && ip.ttl == 64 && icmp4.type == 8`;
    expect(await world.ovn.trace(datapath, flow)).toContain(`output("${b.port}")`);
    const six = `${from(a)} && eth.dst == ${b.mac} && ip6.src == ${a.ipv6} && ip6.dst == ${b.ipv6} && ip.ttl == 64 && icmp6.type == 128`;
    expect(await world.ovn.trace(datapath, six)).toContain(`output("${b.port}")`);
  });

  it("are routed by their gateway, back to the port that has the address", async () => {
    const [a, b] = [nicOf(web), nicOf(db)];
    const routed = `${from(a)} && eth.dst == ${await routerMac()} && ip4.src == ${a.ipv4} && ip4.dst == ${b.ipv4} && ip.ttl == 64 && tcp.dst == 80`;
    const trace = await world.ovn.trace(datapath, routed);
    expect(trace).toContain("ip.ttl--");
    expect(trace).toContain(`output("${b.port}")`);
    const gateway = `${from(a)} && eth.dst == ${await routerMac()} && ip4.src == ${a.ipv4} && ip4.dst == 10.10.0.1 && ip.ttl == 64 && icmp4.type == 8`;
    expect(await world.ovn.trace(datapath, gateway)).toContain(`output("${a.port}")`);
  });

  it("have their ARP and neighbour questions answered by OVN", async () => {
    const [a, b] = [nicOf(web), nicOf(db)];
    const question = `${from(a)} && eth.dst == ff:ff:ff:ff:ff:ff && arp.op == 1 && arp.sha == ${a.mac} && arp.spa == ${a.ipv4} && arp.tpa == ${b.ipv4}`;
    const trace = await world.ovn.trace(datapath, question);
    expect(trace).toContain(`eth.src = ${b.mac}`);
    expect(trace).toContain(`output("${a.port}")`);
  });

  it.each([
    [
      "another's IPv4 address",
      (a: NicStatus, b: NicStatus) =>
        `${from(a)} && eth.dst == ${b.mac} && ip4.src == ${b.ipv4} && ip4.dst == ${b.ipv4} && ip.ttl == 64`,
    ],
    [
      "another's IPv6 address",
      (a: NicStatus, b: NicStatus) =>
        `${from(a)} && eth.dst == ${b.mac} && ip6.src == ${b.ipv6} && ip6.dst == ${b.ipv6} && ip.ttl == 64`,
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
    expect(await world.ovn.trace(datapath, flow(nicOf(web), nicOf(db)))).not.toContain("output(");
  });

  it("get their address, and all that belongs to it, by DHCP", async () => {
    const a = nicOf(web);
    const discover = `${from(a)} && eth.dst == ff:ff:ff:ff:ff:ff && ip4.src == 0.0.0.0 && ip4.dst == 255.255.255.255 && udp.src == 68 && udp.dst == 67 && ip.ttl == 64`;
    const trace = await world.ovn.traceFully(datapath, discover);
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
    const flows = await world.ovn.sbctl("lflow-list", datapath);
    const six = flows.split("\n").find((line) => line.includes("put_dhcpv6_opts") && line.includes(a.port)) ?? "";
    for (const part of [`ia_addr = ${a.ipv6}`, "dns_server = fd42:10::1", 'domain_search = "blue.team-a.internal"'])
      expect(six).toContain(part);
  });

  it("are told the router by advertisements", async () => {
    const flows = await world.ovn.sbctl("lflow-list", `${datapath}.router`);
    const answer = flows.split("\n").find((line) => line.includes("put_nd_ra_opts")) ?? "";
    for (const part of ['addr_mode = "dhcpv6_stateful"', "mtu = 1442", "prefix = fd42:10::/64"]) expect(answer).toContain(part);
  });

  it("have names that OVN answers for", async () => {
    const flows = await world.ovn.sbctl("lflow-list", datapath);
    expect(flows).toContain("dns_lookup()");
    const records = await world.ovn.sbctl("--bare", "--columns=records", "list", "DNS");
    const [a, b] = [nicOf(web), nicOf(db)];
    expect(records).toContain(`web.blue.team-a.internal=${a.ipv4} ${a.ipv6}`);
    expect(records).toContain(`db=${b.ipv4} ${b.ipv6}`);
    expect(records).toContain("20.0.10.10.in-addr.arpa=db.blue.team-a.internal");
  });

  it("are written once: a new operator finds nothing to do", async () => {
    const before = world.dump();
    await world.stopOperator();
    let changes = 0;
    const off = world.watcher.onChange((some) => {
      changes += some.length;
    });
    await world.startOperator();
    // Something that the new operator certainly does last: it has then been through all of these.
    await world.makeNetwork("last", { ipv4: { cidr: "10.99.0.0/24", dhcp: true } });
    await world.networkReady("last");
    const made = changes;
    await world.cluster.client.delete(networkType, key("last"));
    await world.northbound("the last network is gone", () => world.dump().length === before.length);
    off();
    expect(made).toBeLessThanOrEqual(8); // five rows of "last", some told twice as they are linked
    expect(world.dump()).toEqual(before);
  });

  it("are put right when somebody meddles with them, and no other rows are touched", async () => {
    const before = world.dump();
    await world.ovn.nbctl(
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
    await world.ovn.nbctl("lsp-add", datapath, "guest-of-ours");
    await world.ovn.nbctl("acl-add", datapath, "to-lport", "1000", "tcp.dst == 23", "drop");
    await world.ovn.nbctl("set", "Logical_Switch", datapath, "external_ids:theirs=too");
    // As a migration leaves it that died half way.
    await world.ovn.nbctl(
      "set",
      "Logical_Switch_Port",
      nicOf(web).port,
      "options:requested-chassis=n1,n2",
      "options:activation-strategy=rarp",
    );
    await world.northbound("the port is bound to its node alone", () => {
      const row = [...world.watcher.rows("Logical_Switch_Port").values()].find((one) => one["name"] === nicOf(web).port);
      return (
        asMap(row?.["options"]).get("requested-chassis") === web.status?.nodeName &&
        !asMap(row?.["options"]).has("activation-strategy")
      );
    });
    await world.ovn.nbctl("lsp-del", nicOf(db).port);
    await world.ovn.nbctl("--all", "destroy", "DHCP_Options");
    await world.northbound(
      "all is back",
      () => world.rowsOf(db.metadata.uid).length === 2 && world.dump().length === before.length,
    );
    expect(await world.ovn.nbctl("lsp-list", "theirs")).toContain("their-port");
    expect(await world.ovn.nbctl("get", "Logical_Switch", "theirs", "external_ids:owner")).toBe("them");
    expect(await world.ovn.nbctl("lsp-list", datapath)).toContain("guest-of-ours");
    expect(await world.ovn.nbctl("acl-list", datapath)).toContain("tcp.dst == 23");
    expect(await world.ovn.nbctl("get", "Logical_Switch", datapath, "external_ids:theirs")).toBe("too");
    await world.ovn.nbctl(
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
    await world.northbound("it is as before", () => world.dump().join() === before.join());
  });

  it("are there again after the northbound database was emptied", async () => {
    const before = world.dump();
    expect(before.length).toBeGreaterThan(9);
    for (const table of ["Logical_Switch", "Logical_Router", "DHCP_Options", "DNS"])
      await world.ovn.nbctl("--all", "destroy", table);
    await world.northbound("filled again", () => world.dump().join() === before.join());
    await world.ovn.loseNorthbound();
    await world.northbound("filled again after its file was lost", () => world.dump().join() === before.join());
    await world.ovn.synced();
    expect(await world.ovn.sbctl("--bare", "--columns=logical_port", "list", "Port_Binding")).toContain(nicOf(web).port);
  });

  it("a conflict is said, and heals when the other goes", async () => {
    await world.makeInstance("late", [{ name: "eth0", network: "blue", ipv4: "10.10.0.20" }]);
    const late = await until("the conflict is told", world.cluster.seenInstances, () => {
      const one = world.cluster.seenInstances.get(key("late"));
      return readyReason(one, "NetworkReady") === "AddressInUse" ? one : undefined;
    });
    expect(findCondition(late.status?.conditions, "NetworkReady")?.message).toBe(
      "nics[eth0]: ipv4 10.10.0.20 is in use by instance team-a/db; choose another ipv4 or leave it out",
    );
    await world.cluster.client.delete(instanceType, key("db"));
    expect(nicOf(await world.running("late")).ipv4).toBe("10.10.0.20");
    expect(world.rowsOf(db.metadata.uid)).toEqual([]);
  });

  it("the network stays while instances use it, and says which; then it goes, and leaves nothing", async () => {
    await world.cluster.client.delete(networkType, key("blue"));
    const stays = await until("InUse is told", world.networks, () =>
      readyReason(world.network("blue")) === "InUse" ? world.network("blue") : undefined,
    );
    expect(findCondition(stays.status?.conditions, "Ready")?.message).toBe(
      "it is deleted once no instance uses it: late, web; delete them",
    );
    for (const name of ["web", "late"]) await world.cluster.client.delete(instanceType, key(name));
    await until("the network is gone", world.networks, () => world.network("blue") === undefined);
    expect(world.dump()).toEqual([]);
  });
});
