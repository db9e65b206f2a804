/** What follows from a Network alone: its subnets, gateway, domain. Pure, and kept per object since objects never change. */
import type { Network } from "../../crds/network.ts";
import { addressText, parseSubnet, type Subnet } from "./subnet.ts";

export interface NetworkFacts {
  readonly uid: string;
  /** "<namespace>/<name>" */
  readonly key: string;
  readonly name: string;
  readonly domain: string;
  readonly ipv4?: { readonly subnet: Subnet; readonly gateway: string; readonly dhcp: boolean };
  readonly ipv6?: { readonly subnet: Subnet; readonly gateway: string; readonly dhcp: boolean };
}

const family = (cidr: string, dhcp: boolean, version: 4 | 6) => {
  const subnet = parseSubnet(cidr, version);
  return { subnet, gateway: addressText(subnet.gateway, version), dhcp };
};

const known = new WeakMap<Network, NetworkFacts>();

/** Throws when the addresses are not networks; the API server refuses those. */
export const networkFacts = (network: Network): NetworkFacts => {
  const cached = known.get(network);
  if (cached) return cached;
  const { name, namespace = "default", uid } = network.metadata;
  const { ipv4, ipv6, dns } = network.spec;
  const facts: NetworkFacts = {
    uid,
    key: `${namespace}/${name}`,
    name,
    domain: dns?.domain ?? `${name}.${namespace}.internal`,
    ...(ipv4 ? { ipv4: family(ipv4.cidr, ipv4.dhcp, 4) } : {}),
    ...(ipv6 ? { ipv6: family(ipv6.cidr, ipv6.dhcp, 6) } : {}),
  };
  known.set(network, facts);
  return facts;
};
