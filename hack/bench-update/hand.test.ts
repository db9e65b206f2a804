import { expect, test } from "vitest";
import { withTapDescriptor } from "./hand.ts";

test("the NIC's tap comes as a descriptor, all else stays", () => {
  const args = [
    "-name",
    "guest=hand/a",
    "-netdev",
    "tap,id=net-eth0,ifname=hand1,script=no,downscript=no,vnet_hdr=off",
    "-device",
    "x,netdev=net-eth0",
  ];
  expect(withTapDescriptor(args)).toEqual([
    "-name",
    "guest=hand/a",
    "-netdev",
    "tap,id=net-eth0,fd=9",
    "-device",
    "x,netdev=net-eth0",
  ]);
});
