import { describe, expect, it } from "vitest";
import { reverseName } from "./reverse-name.ts";
import { addressText, contains, eui64, parseAddress, parseSubnet, reservedFor, usableAddress, usableCount } from "./subnet.ts";

const four = parseSubnet("10.10.0.0/24", 4);
const six = parseSubnet("fd42:10::/64", 6);

describe("subnets", () => {
  it("have the first address for a gateway", () => {
    expect(addressText(four.gateway, 4)).toBe("10.10.0.1");
    expect(addressText(six.gateway, 6)).toBe("fd42:10::1");
    expect([four.cidr, six.cidr]).toEqual(["10.10.0.0/24", "fd42:10::/64"]);
  });

  it.each([
    ["10.10.0.0/24", 253n, "10.10.0.2", "10.10.0.254"],
    ["10.10.0.8/29", 5n, "10.10.0.10", "10.10.0.14"],
    ["10.0.0.0/8", 16777213n, "10.0.0.2", "10.255.255.254"],
  ])("%s has %i addresses for instances, from %s to %s", (cidr, count, first, last) => {
    const subnet = parseSubnet(cidr, 4);
    expect(usableCount(subnet)).toBe(count);
    expect(addressText(usableAddress(subnet, 0n), 4)).toBe(first);
    expect(addressText(usableAddress(subnet, count - 1n), 4)).toBe(last);
    expect(addressText(usableAddress(subnet, count), 4)).toBe(first);
  });

  it.each([
    ["10.10.0.0", 4, "the network's own address"],
    ["10.10.0.1", 4, "the gateway"],
    ["10.10.0.255", 4, "the broadcast address"],
    ["10.10.0.2", 4, undefined],
    ["fd42:10::", 6, "the routers' anycast address"],
    ["fd42:10::1", 6, "the gateway"],
    ["fd42:10::2", 6, undefined],
    ["fd42:10::ffff:ffff:ffff:ffff", 6, undefined],
  ] as const)("%s is reserved for: %s %s", (text, family, what) => {
    expect(reservedFor(family === 4 ? four : six, parseAddress(text, family) ?? 0n)).toBe(what);
  });

  it("know what is in them", () => {
    expect(contains(four, parseAddress("10.10.0.255", 4) ?? 0n)).toBe(true);
    expect(contains(four, parseAddress("10.10.1.0", 4) ?? 0n)).toBe(false);
  });

  it.each(["10.10.0", "0x0a.1", "010.10.0.1.1", "fd42::1", ""])("%j is no IPv4 address", (text) =>
    expect(parseAddress(text, 4)).toBeUndefined(),
  );
  it.each(["10.10.0.1", "fe80::1%eth0", "::g"])("%j is no IPv6 address", (text) => expect(parseAddress(text, 6)).toBeUndefined());
  it.each(["10.10.0.0", "10.10.0.0/x", "10.10.0.0/33", "fd42::/64"])("%j is no IPv4 network", (text) => {
    expect(() => parseSubnet(text, 4)).toThrow(/not an IPv4 network/);
  });

  it("make an interface identifier of a MAC, as the guest does", () => {
    expect(addressText(eui64(six, "52:54:00:12:34:56"), 6)).toBe("fd42:10::5054:ff:fe12:3456");
  });
});

it.each([
  ["10.10.0.5", "5.0.10.10.in-addr.arpa"],
  ["fd42:10::5", "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.2.4.d.f.ip6.arpa"],
])("%s is looked up as %s", (address, name) => expect(reverseName(address)).toBe(name));
