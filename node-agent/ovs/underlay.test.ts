import { describe, expect, test } from "vitest";
import { underlayAddress, underlayMac } from "./underlay.ts";

describe("underlayAddress", () => {
  test.each([
    ["10.97.0.0/24", "10.147.0.11", "10.97.0.11", 24],
    ["10.97.0.0/16", "192.168.7.9", "10.97.7.9", 16],
    ["10.97.4.0/22", "10.0.6.250", "10.97.6.250", 22],
    ["172.31.0.16/28", "10.0.0.3", "172.31.0.19", 28],
    ["fd00:97::/64", "2001:db8::5", "fd00:97::5", 64],
  ])("%s for the node %s is %s", (cidr, node, address, prefix) => {
    expect(underlayAddress(cidr, node)).toEqual({ address, prefix });
  });

  test.each([
    ["no network", "10.97.0.0", "10.0.0.1", /not a network/],
    ["another family", "10.97.0.0/24", "fd00::1", /not of one family/],
    ["the network's own address", "10.97.0.0/24", "10.0.1.0", /no usable address/],
    ["the broadcast address", "10.97.0.0/24", "10.0.1.255", /no usable address/],
  ])("refuses %s", (_, cidr, node, words) => {
    expect(() => underlayAddress(cidr, node)).toThrow(words);
  });
});

test("a node's hardware address is always the same, locally administered and no multicast", () => {
  const mac = underlayMac("n1", "52:54:00:00:00:01");
  expect(mac).toBe(underlayMac("n1", "52:54:00:00:00:01"));
  expect(mac).not.toBe(underlayMac("n2", "52:54:00:00:00:01"));
  expect(mac).not.toBe(underlayMac("n1", "52:54:00:00:00:02"));
  expect(Number.parseInt(mac.slice(0, 2), 16) & 3).toBe(2);
});
