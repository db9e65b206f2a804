/** An instance's NICs as rows of OVN's northbound database: its ports, and its names on each network. Pure. */
import type { NicStatus } from "../../crds/instance.ts";
import { mapOf, type Value } from "../../ovsdb/index.ts";
import { dhcpRef, quoted, switchRef } from "./desired-network.ts";
import type { NetworkFacts } from "./network-facts.ts";
import { reverseName } from "./reverse-name.ts";
import { type DesiredRow, instanceOwner } from "./rows.ts";

export interface InstancePlan {
  readonly uid: string;
  readonly name: string;
  /** Chassis are named as their nodes; only these may claim the ports. Two while the instance moves: where it runs first. */
  readonly chassis: readonly string[];
  readonly nics: readonly { readonly nic: NicStatus; readonly network: NetworkFacts }[];
  /** The database's DNS rows have options (OVN 24.03 and newer): names of ours are then answered by OVN in full. */
  readonly dnsOptions: boolean;
}

/** MAC and addresses in one text: what the port has, and all that it may send from. */
const portAddresses = ({ mac, ipv4, ipv6 }: NicStatus): string => [mac, ipv4, ipv6].filter(Boolean).join(" ");

/** With the prefix length, broadcasts to the subnet reach it as well. */
const portSecurity = ({ mac, ipv4, ipv6 }: NicStatus, network: NetworkFacts): string =>
  [mac, ipv4 && `${ipv4}/${network.ipv4?.subnet.prefix ?? 32}`, ipv6].filter(Boolean).join(" ");

/**
 * With a second chassis both have the port's flows. activation-strategy: the second one drops its packets until the guest
 * there says by a RARP that it runs; OVN then lets it take the port over, without any help of the northbound database.
 */
const chassisOptions = (chassis: readonly string[]): Record<string, string> => ({
  "requested-chassis": chassis.join(","),
  ...(chassis.length > 1 ? { "activation-strategy": "rarp" } : {}),
});

const portRow = (plan: InstancePlan, nic: NicStatus, network: NetworkFacts): DesiredRow => ({
  owner: instanceOwner(plan.uid),
  // The network is part of the role: a NIC that moved to another one is another row, listed elsewhere.
  role: `port/${nic.name}/${network.uid}`,
  table: "Logical_Switch_Port",
  columns: {
    name: nic.port,
    type: "",
    addresses: [portAddresses(nic)],
    port_security: [portSecurity(nic, network)],
    // As a whole: what a migration that failed left behind (a second chassis, an activation strategy) goes.
    options: mapOf({ ...chassisOptions(plan.chassis), hostname: quoted(plan.name) }),
    dhcpv4_options: [],
    dhcpv6_options: [],
  },
  refs: {
    ...(network.ipv4?.dhcp && nic.ipv4 ? { dhcpv4_options: dhcpRef(network.uid, 4) } : {}),
    ...(network.ipv6?.dhcp && nic.ipv6 ? { dhcpv6_options: dhcpRef(network.uid, 6) } : {}),
  },
  parent: { ...switchRef(network.uid), table: "Logical_Switch", column: "ports" },
});

const records = (name: string, network: NetworkFacts, nics: readonly NicStatus[]): Value => {
  const addresses = nics.flatMap(({ ipv4, ipv6 }) => [ipv4, ipv6].filter((one) => one !== undefined));
  const full = `${name}.${network.domain}`;
  return mapOf({
    [name]: addresses.join(" "),
    [full]: addresses.join(" "),
    ...Object.fromEntries(addresses.map((address) => [reverseName(address), full])),
  });
};

/** Ports and names of one instance; nothing in it depends on any other instance. */
export const instanceRows = (plan: InstancePlan): DesiredRow[] => {
  const networks = new Map(plan.nics.map(({ network }) => [network.uid, network]));
  const names = [...networks.values()].map((network): DesiredRow => {
    const nics = plan.nics.filter((one) => one.network.uid === network.uid).map(({ nic }) => nic);
    return {
      owner: instanceOwner(plan.uid),
      role: `dns/${network.uid}`,
      table: "DNS",
      columns: {
        records: records(plan.name, network, nics),
        ...(plan.dnsOptions ? { options: mapOf({ "ovn-owned": "true" }) } : {}),
      },
      parent: { ...switchRef(network.uid), table: "Logical_Switch", column: "dns_records" },
    };
  });
  return [...plan.nics.map(({ nic, network }) => portRow(plan, nic, network)), ...names];
};
