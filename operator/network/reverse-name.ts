/** The name under which DNS looks up an address (RFC 1035 §3.5, RFC 3596 §2.5). Pure. */
import { parseAddress } from "./subnet.ts";

export const reverseName = (address: string): string => {
  if (!address.includes(":")) return `${address.split(".").reverse().join(".")}.in-addr.arpa`;
  const value = parseAddress(address, 6) ?? 0n;
  return `${value.toString(16).padStart(32, "0").split("").reverse().join(".")}.ip6.arpa`;
};
