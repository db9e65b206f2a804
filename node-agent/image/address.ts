/** Addresses that images must not be fetched from: the node's own services, the cloud's metadata, the cluster's services. Pure. */
import ipaddr from "ipaddr.js";

/** Where no image server is, on any node: a user's url would make the agent talk to what only the node may talk to. */
const ALWAYS_DENIED: [range: string, what: string][] = [
  ["0.0.0.0/8", "this host"],
  ["127.0.0.0/8", "loopback"],
  ["169.254.0.0/16", "link-local, where clouds keep their metadata"],
  ["100.100.100.200/32", "a cloud's metadata"],
  ["168.63.129.16/32", "a cloud's metadata"],
  ["192.0.0.0/24", "reserved"],
  ["224.0.0.0/4", "multicast"],
  ["240.0.0.0/4", "reserved"],
  ["::/128", "this host"],
  ["::1/128", "loopback"],
  ["fe80::/10", "link-local"],
  ["fec0::/10", "site-local"],
  ["ff00::/8", "multicast"],
  ["fd00:ec2::254/128", "a cloud's metadata"],
  ["100::/64", "reserved"],
];

/** IPv6 addresses that carry an IPv4 address, and where in them it is (byte). */
const CARRIERS: [range: string, at: number][] = [
  ["::ffff:0:0/96", 12],
  ["::/96", 12],
  ["::ffff:0:0:0/96", 12],
  ["64:ff9b::/96", 12],
  ["64:ff9b:1::/48", 12],
  ["2002::/16", 2],
];

type Address = ReturnType<typeof ipaddr.parse>;
type Range = ReturnType<typeof ipaddr.parseCIDR>;

export interface AddressRules {
  /** More ranges that are refused: the cluster's service addresses first of all. */
  denied?: readonly string[];
  /** Ranges that are allowed although they are refused; never loopback, which is every node's own. */
  allowed?: readonly string[];
  /** For tests only: an image server on this machine. */
  allowLoopback?: boolean;
}

/**
 * A function that tells why an address is refused; undefined: it is allowed. What is no address is refused.
 * @throws when a range of the rules is none
 */
export function addressCheck(rules: AddressRules = {}): (address: string) => string | undefined {
  const loopback = ALWAYS_DENIED.filter(([, what]) => what === "loopback").map(([range]) => ipaddr.parseCIDR(range));
  const denied: [Range, string][] = [
    ...ALWAYS_DENIED.map(([range, what]): [Range, string] => [ipaddr.parseCIDR(range), what]),
    ...(rules.denied ?? []).map((range): [Range, string] => [parseRange(range), `in ${range}, which is closed to images`]),
  ];
  const allowed = (rules.allowed ?? []).map(parseRange);
  const carriers = CARRIERS.map(([range, at]): [Range, number] => [ipaddr.parseCIDR(range), at]);
  const check = (address: Address): string | undefined => {
    if (loopback.some((range) => contains(range, address))) return rules.allowLoopback ? undefined : "loopback";
    if (allowed.some((range) => contains(range, address))) return undefined;
    const hit = denied.find(([range]) => contains(range, address));
    if (hit) return hit[1];
    const carrier = carriers.find(([range]) => contains(range, address));
    if (!carrier) return undefined;
    return check(ipaddr.fromByteArray(address.toByteArray().slice(carrier[1], carrier[1] + 4)));
  };
  return (text) => (ipaddr.isValid(text) ? check(ipaddr.parse(text)) : "no address");
}

function contains(range: Range, address: Address): boolean {
  return range[0].kind() === address.kind() && address.match(range);
}

function parseRange(text: string): Range {
  try {
    if (text.includes("/")) return ipaddr.parseCIDR(text);
    const address = ipaddr.parse(text);
    return [address, address.kind() === "ipv4" ? 32 : 128];
  } catch (error) {
    throw new Error(`'${text}' is not a range of addresses such as 10.96.0.0/12`, { cause: error });
  }
}
