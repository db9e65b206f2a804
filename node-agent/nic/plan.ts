/** What a NIC still needs, from what the kernel and the switch have. Pure. */
import type { Link } from "./links.ts";
import type { SwitchPort } from "./switch.ts";

export interface NicWant {
  tap: string;
  /** Owner of the tap: the guest's own user on the node. */
  user: number;
  mtu: number;
  mac: string;
  /** OVN's logical port. */
  port: string;
  instanceUid: string;
  nic: string;
}

export type NicStep = "remove-port" | "remove-tap" | "add-tap" | "set-tap" | "add-port" | "set-port";

export const INSTANCE_KEY = "drover.dev/instance";
export const NIC_KEY = "drover.dev/nic";

/** What the interface says of itself to OVN, and to us. */
export const externalIds = (want: NicWant): Record<string, string> => ({
  "iface-id": want.port,
  "attached-mac": want.mac,
  "vm-id": want.instanceUid,
  [INSTANCE_KEY]: want.instanceUid,
  [NIC_KEY]: want.nic,
});

/**
 * Steps in their order; none when the NIC is right. A port whose interface is another one than the kernel's of that name is
 * dead although it looks well: the switch holds a tap that is gone. It must be taken out before it is put in again, and
 * vswitchd must have seen that. A tap that a process holds open is never deleted.
 */
export function planNic(seen: { link: Link | undefined; port: SwitchPort | undefined }, want: NicWant): NicStep[] {
  const { link, port } = seen;
  const steps: NicStep[] = [];
  const held = link?.carrier === true;
  const usable =
    link !== undefined && (held || (link.tap !== undefined && !link.tap.multiQueue && link.tap.user === String(want.user)));
  const iface = port?.interfaces[0];
  const wrongBridge = port !== undefined && port.bridge !== "br-int";
  const dead = port !== undefined && (!usable || wrongBridge || iface === undefined || isDead(iface.ifindex, link));
  if (dead) steps.push("remove-port");
  if (link !== undefined && !usable) steps.push("remove-tap");
  if (!usable) steps.push("add-tap");
  if (!usable || link.mtu !== want.mtu || !link.up) steps.push("set-tap");
  if (port === undefined || dead) steps.push("add-port");
  else if (Object.entries(externalIds(want)).some(([key, value]) => iface?.externalIds.get(key) !== value))
    steps.push("set-port");
  return steps;
}

/** Unknown to the switch (it has not opened it yet, or has no kernel interface for it) is not dead. */
const isDead = (ifindex: number | undefined, link: Link | undefined): boolean =>
  ifindex !== undefined && link !== undefined && ifindex !== link.ifindex;

const TAP = /^d[0-9a-f]{14}$/;

/**
 * Ports and taps of ours that belong to no instance any more. `known` must be complete: a caller who does not know every
 * instance of the node must not ask. A tap that a process holds open is no orphan, whatever is known.
 */
export function orphans(
  seen: { links: readonly Link[]; ports: readonly SwitchPort[] },
  known: { taps: ReadonlySet<string>; instances: ReadonlySet<string> },
): { ports: string[]; taps: string[] } {
  const held = new Set(seen.links.filter((link) => link.carrier).map((link) => link.name));
  const gone = (name: string): boolean => !known.taps.has(name) && !held.has(name);
  return {
    ports: seen.ports.flatMap((port) => {
      const owner = port.interfaces.map((one) => one.externalIds.get(INSTANCE_KEY)).find((uid) => uid !== undefined);
      return TAP.test(port.name) && owner !== undefined && !known.instances.has(owner) && gone(port.name) ? [port.name] : [];
    }),
    taps: seen.links.flatMap((link) => (TAP.test(link.name) && link.tap !== undefined && gone(link.name) ? [link.name] : [])),
  };
}
