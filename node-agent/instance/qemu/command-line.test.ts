import { describe, expect, test } from "vitest";
import type { MachinePlan } from "../driver.ts";
import { commandLine } from "./command-line.ts";

const plan: MachinePlan = {
  instanceUid: "11111111-2222-3333-4444-555555555555",
  namespace: "team-a",
  name: "web",
  claimUid: "99999999-2222-3333-4444-555555555555",
  identity: { uid: 100_000, gid: 100_000 },
  cpus: 2,
  memoryBytes: 536_870_912,
  disks: [{ id: "root", pool: "fast", path: "/var/lib/drover/pools/fast/volumes/11111111/root.raw", direct: true }],
  nics: [{ id: "eth0", tap: "d0123456789abcd", mac: "02:00:00:00:00:01", mtu: 1442 }],
  machineType: "pc-q35-10.0",
  cpuModel: "Westmere-v1",
  accelerator: "TCG",
  runtimeVersion: "1",
};

const whole = `
-name guest=team-a/web,debug-threads=on
-uuid 11111111-2222-3333-4444-555555555555
-machine pc-q35-10.0,memory-backend=ram0,aux-ram-share=on,usb=off,vmport=off
-accel tcg,tb-size=32
-cpu Westmere-v1,enforce
-smp cpus=2,sockets=1,cores=2,threads=1
-m size=536870912b
-object memory-backend-memfd,id=ram0,size=536870912,share=on
-rtc base=utc
-boot strict=on
-action reboot=reset,shutdown=pause,panic=pause,watchdog=none
-nodefaults
-no-user-config
-display none
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-msg timestamp=on
-chardev socket,id=qmp,fd=3,server=on,wait=off
-mon chardev=qmp,mode=control
-chardev socket,id=qmp2,fd=4,server=on,wait=off
-mon chardev=qmp2,mode=control
-add-fd fd=6,set=1
-chardev file,id=console,path=/dev/fdset/1,append=on
-device isa-serial,id=serial0,chardev=console,index=0
-device virtio-serial-pci,id=serial-bus,bus=pcie.0,addr=0x1
-chardev socket,id=qga,fd=5,server=on,wait=off
-device virtserialport,id=guest-agent,bus=serial-bus.0,nr=1,chardev=qga,name=org.qemu.guest_agent.0
-object rng-random,id=entropy,filename=/dev/urandom
-device virtio-rng-pci,id=rng,rng=entropy,bus=pcie.0,addr=0x2
-device pvpanic-pci,id=panic,bus=pcie.0,addr=0x3
-device pcie-root-port,id=disk-port-0,bus=pcie.0,chassis=9,slot=9,addr=0x5.0x0,multifunction=on
-blockdev driver=file,node-name=file-root,filename=/disks/fast/root.raw,cache.direct=on,aio=threads,discard=unmap
-blockdev driver=raw,node-name=disk-root,file=file-root,cache.direct=on,discard=unmap
-device virtio-blk-pci,id=vdisk-root,drive=disk-root,bus=disk-port-0,bootindex=1
-device pcie-root-port,id=nic-port-0,bus=pcie.0,chassis=1,slot=1,addr=0x4.0x0,multifunction=on
-netdev tap,id=net-eth0,ifname=d0123456789abcd,script=no,downscript=no,vnet_hdr=off
-device virtio-net-pci,id=nic-eth0,netdev=net-eth0,mac=02:00:00:00:00:01,host_mtu=1442,romfile=,bus=nic-port-0
`;

const lines = (argv: string[]): string[] => argv.join(" ").split(/ (?=-[a-z])/);
const expected = whole.trim().split("\n");

describe("commandLine", () => {
  test("the whole of it", () => {
    expect(lines(commandLine(plan))).toEqual(expected);
  });

  test.each([
    ["KVM", { accelerator: "KVM" as const }, "-accel tcg,tb-size=32", ["-accel kvm"]],
    ["no NIC", { nics: [] }, /^-(netdev|device virtio-net|device pcie-root-port,id=nic)/, []],
    [
      "a file system without O_DIRECT",
      { disks: plan.disks.map((disk) => ({ ...disk, direct: false })) },
      /^-blockdev/,
      [
        "-blockdev driver=file,node-name=file-root,filename=/disks/fast/root.raw,cache.direct=off,aio=threads,discard=unmap",
        "-blockdev driver=raw,node-name=disk-root,file=file-root,cache.direct=off,discard=unmap",
      ],
    ],
  ])("%s changes only its own lines", (_, change, gone, come) => {
    const argv = lines(commandLine({ ...plan, ...change }));
    const other = (line: string): boolean => (typeof gone === "string" ? line !== gone : !gone.test(line));
    expect(argv.filter((line) => expected.includes(line))).toEqual(expected.filter(other));
    expect(argv.filter((line) => !expected.includes(line))).toEqual(come);
  });

  test("a second NIC and disk get the next ports; the first ones stay where they are", () => {
    const two = lines(
      commandLine({
        ...plan,
        disks: [...plan.disks, { id: "data", pool: "big", path: "/p/big/volumes/x/data.raw" }],
        nics: [...plan.nics, { id: "eth1", tap: "d1", mac: "02:00:00:00:00:02", mtu: 1500 }],
      }),
    );
    expect(two.filter((line) => expected.includes(line))).toEqual(expected);
    expect(two.filter((line) => !expected.includes(line)).map((line) => line.split(",").slice(0, 2).join(","))).toEqual([
      "-device pcie-root-port,id=disk-port-1",
      "-blockdev driver=file,node-name=file-data",
      "-blockdev driver=raw,node-name=disk-data",
      "-device virtio-blk-pci,id=vdisk-data",
      "-device pcie-root-port,id=nic-port-1",
      "-netdev tap,id=net-eth1",
      "-device virtio-net-pci,id=nic-eth1",
    ]);
    expect(two.find((line) => line.includes("vdisk-data"))).toContain(",serial=data");
    expect(two.find((line) => line.includes("nic-port-1"))).toContain("chassis=2,slot=2,addr=0x4.0x1");
  });

  test("one that takes a guest over is the same machine, with taps that are open already", () => {
    const nics = [...plan.nics, { id: "eth1", tap: "d1", mac: "02:00:00:00:00:02", mtu: 1500 }];
    const [first, second] = [commandLine({ ...plan, nics }), commandLine({ ...plan, nics }, { takesOver: true })].map(lines);
    expect(second?.filter((line) => !first?.includes(line))).toEqual([
      "-netdev tap,id=net-eth0,fd=7",
      "-netdev tap,id=net-eth1,fd=8",
    ]);
    expect(second?.length).toBe(first?.length);
  });

  test("more NICs than ports are refused", () => {
    const nics = Array.from({ length: 9 }, () => plan.nics).flat();
    expect(() => commandLine({ ...plan, nics })).toThrow("a machine takes at most 8 NICs");
  });
});
