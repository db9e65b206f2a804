/** Arithmetic on addresses: subnets as numbers, so that "the n-th address" is a sum. Pure. */
import ipaddr from "ipaddr.js";

export type Family = 4 | 6;

/** A subnet of one family; addresses are numbers of 32 or 128 bits. */
export interface Subnet {
  readonly family: Family;
  readonly cidr: string;
  readonly base: bigint;
  readonly prefix: number;
  /** How many addresses there are, reserved ones included. */
  readonly size: bigint;
  /** The router's address: the first after the network's own. */
  readonly gateway: bigint;
}

const bitsOf = (family: Family): number => (family === 4 ? 32 : 128);

const toNumber = (bytes: readonly number[]): bigint => bytes.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);

/** The address as a number; undefined for what is not an address of the family, written in full. */
export const parseAddress = (text: string, family: Family): bigint | undefined => {
  const valid = family === 4 ? ipaddr.IPv4.isValidFourPartDecimal(text) : ipaddr.IPv6.isValid(text) && !text.includes("%");
  return valid ? toNumber(ipaddr.parse(text).toByteArray()) : undefined;
};

/** The address as it is written: dotted, or RFC 5952's shortest form. */
export const addressText = (value: bigint, family: Family): string => {
  const bytes = Array.from({ length: bitsOf(family) / 8 }, (_, index) =>
    Number((value >> BigInt(bitsOf(family) - 8 * (index + 1))) & 0xffn),
  );
  const address = ipaddr.fromByteArray(bytes);
  return address instanceof ipaddr.IPv6 ? address.toRFC5952String() : address.toString();
};

/** Reads "10.10.0.0/24". Throws for what the API server would have refused. */
export const parseSubnet = (cidr: string, family: Family): Subnet => {
  const [text = "", length = ""] = cidr.split("/");
  const address = parseAddress(text, family);
  const prefix = Number(length);
  if (address === undefined || !/^\d+$/.test(length) || prefix > bitsOf(family))
    throw new Error(`"${cidr}" is not an IPv${family} network`);
  const size = 1n << BigInt(bitsOf(family) - prefix);
  const base = address - (address % size);
  return { family, cidr: `${addressText(base, family)}/${prefix}`, base, prefix, size, gateway: base + 1n };
};

export const contains = (subnet: Subnet, address: bigint): boolean =>
  address >= subnet.base && address < subnet.base + subnet.size;

/** Why an address of the subnet is not for instances; undefined when it is. */
export const reservedFor = (subnet: Subnet, address: bigint): string | undefined => {
  if (address === subnet.base) return subnet.family === 4 ? "the network's own address" : "the routers' anycast address";
  if (address === subnet.gateway) return "the gateway";
  if (subnet.family === 4 && address === subnet.base + subnet.size - 1n) return "the broadcast address";
  return undefined;
};

/** How many IPv4 addresses instances can have: all but network, gateway and broadcast. */
export const usableCount = (subnet: Subnet): bigint => subnet.size - 3n;

/** The n-th address for instances, counted from 0; n wraps around. IPv4 only: IPv6 addresses are not counted out. */
export const usableAddress = (subnet: Subnet, n: bigint): bigint => subnet.base + 2n + (n % usableCount(subnet));

/** Interface identifier made of a MAC (RFC 4291, modified EUI-64), put into the subnet. */
export const eui64 = (subnet: Subnet, mac: string): bigint => {
  const bytes = mac.split(":").map((part) => Number.parseInt(part, 16));
  const [first = 0, ...rest] = bytes;
  return subnet.base + toNumber([first ^ 2, ...rest.slice(0, 2), 0xff, 0xfe, ...rest.slice(2)]);
};
