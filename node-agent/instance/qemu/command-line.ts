/** MachinePlan -> QEMU's arguments. Pure: the same plan gives the same machine on every node. */
import type { MachineDisk, MachineNic, MachinePlan } from "../driver.ts";

export const QEMU = "/usr/bin/qemu-system-x86_64";

/** Descriptors that the launcher opens and hands over; their names are files in the instance's `vm` directory. */
export const HANDED = {
  qmp: { fd: 3, name: "qmp" },
  qmp2: { fd: 4, name: "qmp2" },
  guestAgent: { fd: 5, name: "qga" },
  console: { fd: 6, name: "console.log" },
} as const;

/** First of the descriptors of taps that a QEMU takes over from the one before it, in the order of the plan's NICs. */
const FIRST_TAP_FD = 7;

export const tapDescriptor = (index: number): number => FIRST_TAP_FD + index;

/** Chardev of the guest agent's port; `query-chardev` tells whether the guest has it open. */
export const GUEST_AGENT = "qga";

/**
 * Slots on the root bus. They are part of what a guest sees: a NIC or disk that moved to another slot would get another name
 * in it, and a migration's target must have the same. NICs and disks sit behind root ports, eight to a slot.
 */
const SLOT = { serial: 1, entropy: 2, panic: 3, nics: 4, disks: 5 } as const;
const PORTS_PER_SLOT = 8;

/** Translated code of TCG, MiB. QEMU's own default is many times that and would count against the claim. */
const TCG_BUFFER_MIB = 32;

/** An option and its value, if it has one. */
type Option = string[];

/**
 * QEMU's arguments, without the program. `takesOver`: its taps are open already, as tapDescriptor says. Throws RangeError when the plan
 * has more disks or NICs than the machine has slots.
 */
export function commandLine(plan: MachinePlan, { takesOver = false }: { takesOver?: boolean } = {}): string[] {
  if (plan.nics.length > PORTS_PER_SLOT) throw new RangeError(`a machine takes at most ${PORTS_PER_SLOT} NICs`);
  if (plan.disks.length > PORTS_PER_SLOT) throw new RangeError(`a machine takes at most ${PORTS_PER_SLOT} disks`);
  return [
    ...machine(plan),
    ...confinement,
    ...monitors,
    ...serial,
    ...fixedDevices,
    ...plan.disks.flatMap((disk, index) => diskOptions(disk, index)),
    ...plan.nics.flatMap((nic, index) => nicOptions(nic, index, takesOver)),
  ].flat();
}

/** Where a disk lies in the guest's own root directory. */
export function pathInside(disk: MachineDisk): string {
  const file = disk.path.slice(disk.path.lastIndexOf("/") + 1);
  return `/disks/${disk.pool}/${file}`;
}

function machine(plan: MachinePlan): Option[] {
  const accelerator = plan.accelerator === "KVM" ? "kvm" : `tcg,tb-size=${TCG_BUFFER_MIB}`;
  return [
    ["-name", `guest=${plan.namespace}/${plan.name},debug-threads=on`],
    ["-uuid", plan.instanceUid],
    // RAM in a shared memfd: QEMU can be replaced under the guest without moving its memory
    ["-machine", `${plan.machineType},memory-backend=ram0,aux-ram-share=on,usb=off,vmport=off`],
    ["-accel", accelerator],
    ["-cpu", `${plan.cpuModel},enforce`],
    ["-smp", `cpus=${plan.cpus},sockets=1,cores=${plan.cpus},threads=1`],
    ["-m", `size=${plan.memoryBytes}b`],
    ["-object", `memory-backend-memfd,id=ram0,size=${plan.memoryBytes},share=on`],
    ["-rtc", "base=utc"],
    ["-boot", "strict=on"],
    // A guest that shuts down or panics leaves a QEMU that says so, until the agent has seen it: also an agent that was away.
    ["-action", "reboot=reset,shutdown=pause,panic=pause,watchdog=none"],
  ];
}

const confinement: Option[] = [
  ["-nodefaults"],
  ["-no-user-config"],
  ["-display", "none"],
  ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
  ["-msg", "timestamp=on"],
];

const monitor = (id: string, fd: number): Option[] => [
  ["-chardev", `socket,id=${id},fd=${fd},server=on,wait=off`],
  ["-mon", `chardev=${id},mode=control`],
];

/** Two, for a monitor serves one client at a time. */
const monitors: Option[] = [...monitor("qmp", HANDED.qmp.fd), ...monitor("qmp2", HANDED.qmp2.fd)];

const serial: Option[] = [
  ["-add-fd", `fd=${HANDED.console.fd},set=1`],
  ["-chardev", "file,id=console,path=/dev/fdset/1,append=on"],
  ["-device", "isa-serial,id=serial0,chardev=console,index=0"],
];

const fixedDevices: Option[] = [
  ["-device", `virtio-serial-pci,id=serial-bus,bus=pcie.0,addr=${hex(SLOT.serial)}`],
  ["-chardev", `socket,id=${GUEST_AGENT},fd=${HANDED.guestAgent.fd},server=on,wait=off`],
  ["-device", `virtserialport,id=guest-agent,bus=serial-bus.0,nr=1,chardev=${GUEST_AGENT},name=org.qemu.guest_agent.0`],
  ["-object", "rng-random,id=entropy,filename=/dev/urandom"],
  ["-device", `virtio-rng-pci,id=rng,rng=entropy,bus=pcie.0,addr=${hex(SLOT.entropy)}`],
  ["-device", `pvpanic-pci,id=panic,bus=pcie.0,addr=${hex(SLOT.panic)}`],
];

function diskOptions(disk: MachineDisk, index: number): Option[] {
  const direct = (disk.direct ?? true) ? "on" : "off";
  return [
    rootPort(`disk-port-${index}`, SLOT.disks, index),
    [
      "-blockdev",
      `driver=file,node-name=file-${disk.id},filename=${pathInside(disk)},cache.direct=${direct},aio=threads,discard=unmap`,
    ],
    ["-blockdev", `driver=raw,node-name=disk-${disk.id},file=file-${disk.id},cache.direct=${direct},discard=unmap`],
    [
      "-device",
      `virtio-blk-pci,id=vdisk-${disk.id},drive=disk-${disk.id},bus=disk-port-${index},bootindex=${index + 1}${index === 0 ? "" : `,serial=${disk.id}`}`,
    ],
  ];
}

function nicOptions(nic: MachineNic, index: number, takesOver: boolean): Option[] {
  const tap = takesOver ? `fd=${tapDescriptor(index)}` : `ifname=${nic.tap},script=no,downscript=no,vnet_hdr=off`;
  return [
    rootPort(`nic-port-${index}`, SLOT.nics, index),
    ["-netdev", `tap,id=net-${nic.id},${tap}`],
    [
      "-device",
      `virtio-net-pci,id=nic-${nic.id},netdev=net-${nic.id},mac=${nic.mac},host_mtu=${nic.mtu},romfile=,bus=nic-port-${index}`,
    ],
  ];
}

/** A port of its own for a device, so that it can be plugged later. Chassis numbers are unique in the machine. */
function rootPort(id: string, slot: number, index: number): Option {
  const chassis = (slot - SLOT.nics) * PORTS_PER_SLOT + index + 1;
  const address = `addr=${hex(slot)}.${hex(index)}${index === 0 ? ",multifunction=on" : ""}`;
  return ["-device", `pcie-root-port,id=${id},bus=pcie.0,chassis=${chassis},slot=${chassis},${address}`];
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
