/** A Network as rows of OVN's northbound database. Pure. */
import { mapOf } from "../../ovsdb/index.ts";
import type { NetworkFacts } from "./network-facts.ts";
import { type DesiredRow, networkOwner, type RowRef, routerMac } from "./rows.ts";

export interface PlanSettings {
  readonly mtu: number;
}

const LEASE_SECONDS = "3600";
/** Router advertisements, in seconds: often enough that a guest which missed one waits no minute for the next. */
const RA_MAX_INTERVAL = "60";
const RA_MIN_INTERVAL = "20";

/** OVN puts these options into its flows as they stand there: a string without its quotes is a flow that no node takes. */
export const quoted = (text: string): string => `"${text}"`;

const namePrefix = (facts: NetworkFacts): string => `${facts.key.replace("/", ".")}.${facts.uid.slice(0, 8)}`;

/** The network's switch: ports of instances hang on it. */
export const switchRef = (uid: string): RowRef => ({ owner: networkOwner(uid), role: "switch" });
/** DHCP options that ports refer to, where the network gives addresses by DHCP. */
export const dhcpRef = (uid: string, family: 4 | 6): RowRef => ({ owner: networkOwner(uid), role: `dhcp${family}` });

const advertisements = (facts: NetworkFacts, { mtu }: PlanSettings): Record<string, string> =>
  facts.ipv6
    ? {
        address_mode: facts.ipv6.dhcp ? "dhcpv6_stateful" : "slaac",
        mtu: String(mtu),
        send_periodic: "true",
        max_interval: RA_MAX_INTERVAL,
        min_interval: RA_MIN_INTERVAL,
        rdnss: facts.ipv6.gateway,
        dnssl: facts.domain,
      }
    : {};

const dhcpRows = (facts: NetworkFacts, { mtu }: PlanSettings): DesiredRow[] => {
  const rows: DesiredRow[] = [];
  const mac = routerMac(facts.uid);
  if (facts.ipv4?.dhcp) {
    const { gateway, subnet } = facts.ipv4;
    rows.push({
      ...dhcpRef(facts.uid, 4),
      table: "DHCP_Options",
      columns: {
        cidr: subnet.cidr,
        options: mapOf({
          server_id: gateway,
          server_mac: mac,
          lease_time: LEASE_SECONDS,
          router: gateway,
          dns_server: gateway,
          domain_name: quoted(facts.domain),
          mtu: String(mtu),
        }),
      },
    });
  }
  if (facts.ipv6?.dhcp) {
    const { gateway, subnet } = facts.ipv6;
    rows.push({
      ...dhcpRef(facts.uid, 6),
      table: "DHCP_Options",
      columns: {
        cidr: subnet.cidr,
        options: mapOf({ server_id: mac, dns_server: gateway, domain_search: quoted(facts.domain) }),
      },
    });
  }
  return rows;
};

/** Router, switch, the pair of ports between them, DHCP: all that a network has before any instance is on it. */
export const networkRows = (facts: NetworkFacts, settings: PlanSettings): DesiredRow[] => {
  const owner = networkOwner(facts.uid);
  const prefix = namePrefix(facts);
  const networks = [facts.ipv4, facts.ipv6].flatMap((one) => (one ? [`${one.gateway}/${one.subnet.prefix}`] : []));
  const routerPort = `${prefix}.router-port`;
  return [
    { owner, role: "router", table: "Logical_Router", columns: { name: `${prefix}.router`, options: mapOf({}) } },
    {
      owner,
      role: "router-port",
      table: "Logical_Router_Port",
      columns: {
        name: routerPort,
        mac: routerMac(facts.uid),
        networks,
        ipv6_ra_configs: mapOf(advertisements(facts, settings)),
        options: mapOf({}),
      },
      parent: { owner, role: "router", table: "Logical_Router", column: "ports" },
    },
    { ...switchRef(facts.uid), table: "Logical_Switch", columns: { name: prefix, other_config: mapOf({}) } },
    {
      owner,
      role: "switch-port",
      table: "Logical_Switch_Port",
      columns: {
        name: `${prefix}.switch-port`,
        type: "router",
        addresses: ["router"],
        port_security: [],
        options: mapOf({ "router-port": routerPort }),
        dhcpv4_options: [],
        dhcpv6_options: [],
      },
      parent: { ...switchRef(facts.uid), table: "Logical_Switch", column: "ports" },
    },
    ...dhcpRows(facts, settings),
  ];
};
