/** Which MAC and addresses a NIC gets when it names none: the same each time it is asked, as long as they are free. Pure. */
import { hashBytes, madeUpMac } from "./rows.ts";
import { addressText, eui64, reservedFor, type Subnet, usableAddress, usableCount } from "./subnet.ts";

/** How often a made-up value may meet one that is taken before we say that something is wrong. */
const TRIES = 1000;

const hashNumber = (text: string, bytes = 8): bigint => BigInt(`0x${hashBytes(text).subarray(0, bytes).toString("hex")}`);

/** A MAC that nobody on the network has. */
export const chooseMac = (seed: string, isFree: (mac: string) => boolean): string => {
  for (let n = 0; n < TRIES; n += 1) {
    const mac = madeUpMac(`mac/${seed}/${n}`);
    if (isFree(mac)) return mac;
  }
  throw new Error(`no free MAC found in ${TRIES} tries; this is a bug, or somebody claims them all`);
};

/**
 * A free IPv4 address of the whole subnet, from a place that the seed names and then onward; undefined when there is none.
 * `claimed`: how many addresses are taken, so that no more than that are looked at in vain.
 */
export const chooseIpv4 = (
  subnet: Subnet,
  seed: string,
  claimed: number,
  isFree: (address: string) => boolean,
): string | undefined => {
  const usable = usableCount(subnet);
  const start = hashNumber(`ipv4/${seed}`) % usable;
  const looks = BigInt(claimed) + 1n < usable ? BigInt(claimed) + 1n : usable;
  for (let n = 0n; n < looks; n += 1n) {
    const address = addressText(usableAddress(subnet, start + n), 4);
    if (isFree(address)) return address;
  }
  return undefined;
};

/** The address that the guest would make of its MAC by itself (EUI-64); should somebody have it, one from a hash. */
export const chooseIpv6 = (subnet: Subnet, mac: string, seed: string, isFree: (address: string) => boolean): string => {
  const natural = addressText(eui64(subnet, mac), 6);
  if (isFree(natural)) return natural;
  for (let n = 0; n < TRIES; n += 1) {
    const value = subnet.base + hashNumber(`ipv6/${seed}/${n}`);
    const address = addressText(value, 6);
    if (reservedFor(subnet, value) === undefined && isFree(address)) return address;
  }
  throw new Error(`no free IPv6 address found in ${TRIES} tries; this is a bug, or somebody claims them all`);
};
