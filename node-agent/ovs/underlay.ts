/** The way out of the node for tunnels of a userspace switch: a macvlan child of the node's interface, and an address of its own. */
import { createHash } from "node:crypto";
import ipaddr from "ipaddr.js";
import { UserError } from "../errors.ts";
import type { Links } from "../nic/links.ts";

export const UNDERLAY_LINK = "under0";
export const UNDERLAY_BRIDGE = "br-phys";

export interface UnderlayAddress {
  address: string;
  prefix: number;
}

/**
 * A node's address in the underlay's network: the network part of `cidr`, the host part of the node's own address, so that
 * nobody has to hand them out. Throws UserError when that cannot be one.
 */
export function underlayAddress(cidr: string, nodeIp: string): UnderlayAddress {
  if (!ipaddr.isValidCIDR(cidr)) {
    throw new UserError("UnderlayInvalid", `ovs.underlay.cidr "${cidr}" is not a network; write one such as 10.97.0.0/24`);
  }
  const [network, prefix] = ipaddr.parseCIDR(cidr);
  const own = ipaddr.parse(nodeIp);
  if (network.kind() !== own.kind()) {
    throw new UserError(
      "UnderlayInvalid",
      `ovs.underlay.cidr ${cidr} and the node's address ${nodeIp} are not of one family; give a network of the node's family`,
    );
  }
  const net = network.toByteArray();
  const host = own.toByteArray();
  const bytes = net.map((byte, i) => {
    const mask = maskByte(prefix, i);
    return (byte & mask) | ((host[i] ?? 0) & ~mask & 0xff);
  });
  const hostBits = bytes.map((byte, i) => byte & ~maskByte(prefix, i) & 0xff);
  const all = (test: (byte: number, mask: number) => boolean): boolean =>
    hostBits.every((byte, i) => test(byte, ~maskByte(prefix, i) & 0xff));
  if (all((byte) => byte === 0) || (own.kind() === "ipv4" && prefix < 31 && all((byte, mask) => byte === mask))) {
    throw new UserError(
      "UnderlayInvalid",
      `the node's address ${nodeIp} gives no usable address in ovs.underlay.cidr ${cidr}; give a network with a longer host part`,
    );
  }
  return { address: ipaddr.fromByteArray(bytes).toString(), prefix };
}

const maskByte = (prefix: number, index: number): number => {
  const bits = Math.max(0, Math.min(8, prefix - index * 8));
  return (0xff << (8 - bits)) & 0xff;
};

/**
 * The child's hardware address: the same each time it is made on this node, for its neighbours remember it. Locally
 * administered. The parent's is in it, so that nodes of the same name in two clusters differ.
 */
export function underlayMac(nodeName: string, parentMac: string): string {
  const bytes = createHash("sha256").update(`${nodeName}/${parentMac}`).digest().subarray(0, 6);
  bytes[0] = ((bytes[0] ?? 0) & 0xfc) | 0x02;
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/**
 * Makes the macvlan child if it is missing, and gives its hardware address, which the bridge must have too. The parent keeps
 * its addresses and routes. Throws UserError when there is no parent.
 */
export async function ensureUnderlayLink(links: Links, want: { parent: string; nodeName: string }): Promise<string> {
  const parent = await links.get(want.parent);
  if (parent === undefined) {
    throw new UserError(
      "UnderlayParentMissing",
      `the node has no network interface "${want.parent}"; set ovs.underlay.parent to the one that reaches the other nodes`,
    );
  }
  const found = await links.get(UNDERLAY_LINK);
  if (found !== undefined && found.parent === parent.name) {
    if (!found.up) await links.set(UNDERLAY_LINK, ["up"]);
    return found.mac;
  }
  if (found !== undefined) await links.remove(UNDERLAY_LINK);
  const mac = underlayMac(want.nodeName, parent.mac);
  await links.add([UNDERLAY_LINK, "link", want.parent, "address", mac, "type", "macvlan", "mode", "bridge"]);
  await links.set(UNDERLAY_LINK, ["up"]);
  return mac;
}

/** The interface that has the node's address, else that of the default route. */
export async function underlayParent(links: Links, nodeIp: string): Promise<string> {
  const name = (await links.withAddress(nodeIp)) ?? (await links.ofDefaultRoute());
  if (name !== undefined) return name;
  throw new UserError(
    "UnderlayParentMissing",
    `no network interface of the node has its address ${nodeIp}, and it has no default route; set ovs.underlay.parent`,
  );
}
