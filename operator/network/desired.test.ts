import { describe, expect, it } from "vitest";
import type { NicStatus } from "../../crds/instance.ts";
import { asMap, mapOf } from "../../ovsdb/index.ts";
import { instanceRows } from "./desired-instance.ts";
import { networkRows } from "./desired-network.ts";
import { networkFixture } from "./fixtures.ts";
import { networkFacts } from "./network-facts.ts";
import { routerMac } from "./rows.ts";

const v4 = { cidr: "10.10.0.0/24", dhcp: true };
const v6 = { cidr: "fd42:10::/64", dhcp: true };
const facts = (spec: Parameters<typeof networkFixture>[0]) => networkFacts(networkFixture(spec));
const roles = (rows: { table: string; role: string }[]): string[] => rows.map(({ table, role }) => `${table} ${role}`);

describe("a network's rows", () => {
  const both = facts({ ipv4: v4, ipv6: v6 });
  const rows = networkRows(both, { mtu: 1442 });
  const row = (role: string, of = rows) => of.find((one) => one.role === role);
  const mac = routerMac(both.uid);

  it("are router, switch, the ports between, and DHCP of both families", () => {
    expect(roles(rows)).toEqual([
      "Logical_Router router",
      "Logical_Router_Port router-port",
      "Logical_Switch switch",
      "Logical_Switch_Port switch-port",
      "DHCP_Options dhcp4",
      "DHCP_Options dhcp6",
    ]);
  });
  it("the router has the gateways, and advertises itself", () => {
    expect(row("router-port")?.columns).toEqual({
      name: "team-a.blue.blue000-.router-port",
      mac,
      networks: ["10.10.0.1/24", "fd42:10::1/64"],
      ipv6_ra_configs: mapOf({
        address_mode: "dhcpv6_stateful",
        mtu: "1442",
        send_periodic: "true",
        max_interval: "60",
        min_interval: "20",
        rdnss: "fd42:10::1",
        dnssl: "blue.team-a.internal",
      }),
      options: mapOf({}),
    });
    expect(row("switch-port")?.columns).toMatchObject({
      type: "router",
      addresses: ["router"],
      options: mapOf({ "router-port": "team-a.blue.blue000-.router-port" }),
    });
  });
  it("DHCP says what a guest needs", () => {
    expect(row("dhcp4")?.columns).toEqual({
      cidr: "10.10.0.0/24",
      options: mapOf({
        server_id: "10.10.0.1",
        server_mac: mac,
        lease_time: "3600",
        router: "10.10.0.1",
        dns_server: "10.10.0.1",
        domain_name: '"blue.team-a.internal"',
        mtu: "1442",
      }),
    });
    expect(row("dhcp6")?.columns).toEqual({
      cidr: "fd42:10::/64",
      options: mapOf({ server_id: mac, dns_server: "fd42:10::1", domain_search: '"blue.team-a.internal"' }),
    });
  });
  it("leave out what the spec leaves out", () => {
    const one = networkRows(facts({ ipv6: { ...v6, dhcp: false }, dns: { domain: "x.example" } }), { mtu: 8942 });
    expect(roles(one)).toHaveLength(4);
    expect(row("router-port", one)?.columns).toMatchObject({ networks: ["fd42:10::1/64"] });
    const advertised = asMap(row("router-port", one)?.columns["ipv6_ra_configs"]);
    expect(Object.fromEntries(advertised)).toMatchObject({ address_mode: "slaac", mtu: "8942", dnssl: "x.example" });
    const none = row("router-port", networkRows(facts({ ipv4: v4 }), { mtu: 1442 }));
    expect(none?.columns["ipv6_ra_configs"]).toEqual(mapOf({}));
  });
});

describe("an instance's rows", () => {
  const network = facts({ ipv4: v4, ipv6: v6 });
  const nic: NicStatus = {
    name: "eth0",
    network: "blue",
    mac: "52:54:00:00:00:05",
    ipv4: "10.10.0.5",
    ipv6: "fd42:10::5",
    port: "team-a.web.eth0.u",
    mtu: 1442,
  };
  const plan = { uid: "u", name: "web", chassis: ["n1"], nics: [{ nic, network }], dnsOptions: false };

  it("are a port that can be nobody else, and its names", () => {
    const [port, dns, ...more] = instanceRows(plan);
    expect(more).toEqual([]);
    expect(port).toMatchObject({
      owner: "instance/u",
      columns: {
        name: "team-a.web.eth0.u",
        addresses: ["52:54:00:00:00:05 10.10.0.5 fd42:10::5"],
        port_security: ["52:54:00:00:00:05 10.10.0.5/24 fd42:10::5"],
        options: mapOf({ "requested-chassis": "n1", hostname: '"web"' }),
      },
      refs: { dhcpv4_options: { role: "dhcp4" }, dhcpv6_options: { role: "dhcp6" } },
    });
    expect(Object.fromEntries(asMap(dns?.columns["records"]))).toEqual({
      web: "10.10.0.5 fd42:10::5",
      "web.blue.team-a.internal": "10.10.0.5 fd42:10::5",
      "5.0.10.10.in-addr.arpa": "web.blue.team-a.internal",
      "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.2.4.d.f.ip6.arpa": "web.blue.team-a.internal",
    });
    expect(dns?.columns["options"]).toBeUndefined();
  });
  it("are a port on both nodes while the instance moves, silent at the second until the guest runs there", () => {
    const [port] = instanceRows({ ...plan, chassis: ["n1", "n2"] });
    expect(port?.columns["options"]).toEqual(
      mapOf({ "requested-chassis": "n1,n2", "activation-strategy": "rarp", hostname: '"web"' }),
    );
  });
  it("have names that OVN answers in full where it can", () => {
    expect(instanceRows({ ...plan, dnsOptions: true })[1]?.columns["options"]).toEqual(mapOf({ "ovn-owned": "true" }));
  });
  it("have one set of names for two NICs on a network", () => {
    const second: NicStatus = {
      ...nic,
      name: "eth1",
      mac: "52:54:00:00:00:06",
      ipv4: "10.10.0.6",
      ipv6: "fd42:10::6",
      port: "team-a.web.eth1.u",
    };
    const rows = instanceRows({ ...plan, nics: [...plan.nics, { nic: second, network }] });
    expect(roles(rows)).toHaveLength(3);
    expect(asMap(rows[2]?.columns["records"]).get("web")).toBe("10.10.0.5 fd42:10::5 10.10.0.6 fd42:10::6");
  });
  it("refer to no DHCP where the network has none", () => {
    const plain = facts({ ipv4: { ...v4, dhcp: false } });
    const { ipv6: _, ...only4 } = nic;
    const [port] = instanceRows({ ...plan, nics: [{ nic: only4, network: plain }] });
    expect(port).toMatchObject({ refs: {}, columns: { addresses: ["52:54:00:00:00:05 10.10.0.5"], dhcpv4_options: [] } });
  });
});
