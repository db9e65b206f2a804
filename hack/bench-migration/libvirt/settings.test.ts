import { expect, test } from "vitest";
import { domainXml, hostFiles, machineLike } from "./settings.ts";

const argv = [
  "/usr/bin/qemu-system-x86_64",
  "-machine",
  "pc-q35-10.0,memory-backend=ram0,usb=off",
  "-cpu",
  "Westmere-v1,enforce",
  "-smp",
  "cpus=2,sockets=1",
  "-m",
  "size=1073741824b",
  "-netdev",
  "tap,id=net-eth0,ifname=x,queues=2",
  "-device",
  "virtio-blk-pci,id=vdisk-root",
  "-device",
  "virtio-net-pci,id=nic-eth0,host_mtu=1442,mq=on",
];

test("the machine of a guest of Drover's", () => {
  expect(machineLike(argv)).toEqual({
    machineType: "pc-q35-10.0",
    cpuModel: "Westmere",
    memoryBytes: 2 ** 30,
    cpus: 2,
    queues: 2,
    mtu: 1442,
  });
  expect(machineLike(argv.map((one) => (one.startsWith("Westmere") ? "EPYC-v4,enforce" : one)))).toMatchObject({
    cpuModel: "EPYC-v4",
  });
});

test("what it has not is an error that says so", () => {
  expect(() => machineLike(argv.filter((one) => !one.startsWith("cpus=")))).toThrow("-smp");
});

test("a domain has that machine, its own places, and says when it runs", () => {
  const xml = domainXml({
    name: "virt1",
    uuid: "u",
    like: machineLike(argv),
    disk: "/disks/virt1.raw",
    tap: "virt1",
    mac: "02:00:00:00:00:01",
  });
  for (const part of [
    "pc-q35-10.0",
    ">Westmere<",
    ">1073741824<",
    "/disks/virt1.raw",
    "dev='virt1'",
    "02:00:00:00:00:01",
    "vm_state_notify",
  ])
    expect(xml).toContain(part);
});

test("two hosts differ by their uuid", () => {
  expect(hostFiles({ uuid: "one" })["libvirt/libvirtd.conf"]).toContain('host_uuid = "one"');
});
