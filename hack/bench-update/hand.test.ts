import { expect, test } from "vitest";
import { inHierarchy, withTapDescriptor } from "./hand.ts";

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

test("a cgroup has one path in all hierarchies", () => {
  expect(inHierarchy("/sys/fs/cgroup/memory/kubepods/burstable/pod1")).toBe("kubepods/burstable/pod1");
  expect(inHierarchy("/sys/fs/cgroup/kubepods.slice/pod1")).toBe("kubepods.slice/pod1");
});
