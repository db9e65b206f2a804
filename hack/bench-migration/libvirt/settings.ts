/** What libvirt is told: its settings, and a guest with the machine of one of Drover's. Pure. */

/** Names below /etc that libvirtd reads, and their content. */
export const hostFiles = ({ uuid }: { uuid: string }): Record<string, string> => ({
  // libvirtd looks its usual user up, though it does not use it here
  passwd: "root:x:0:0::/:/bin/sh\nlibvirt-qemu:x:64055:64055::/:/bin/sh\n",
  group: "root:x:0:\nlibvirt:x:64054:\nlibvirt-qemu:x:64055:\nkvm:x:64056:\n",
  "libvirt/libvirtd.conf": [
    "listen_tls = 0",
    "listen_tcp = 1",
    'auth_tcp = "none"',
    `host_uuid = "${uuid}"`,
    'log_outputs = "2:stderr"',
    "",
  ].join("\n"),
  "libvirt/qemu.conf": [
    'user = "+0"',
    'group = "+0"',
    "dynamic_ownership = 0",
    "remember_owner = 0",
    'security_driver = "none"',
    "namespaces = []",
    "cgroup_controllers = []",
    'stdio_handler = "file"',
    'migrate_tls_x509_cert_dir = "/etc/pki/qemu"',
    "migrate_tls_x509_verify = 1",
    "migration_port_min = 49910",
    "migration_port_max = 49959",
    "",
  ].join("\n"),
});

/** What of a QEMU's command line makes the machine that its guest sees. */
export interface MachineLike {
  machineType: string;
  cpuModel: string;
  memoryBytes: number;
  cpus: number;
  /** Queues of its NIC. */
  queues: number;
  mtu: number;
}

const after = (argv: readonly string[], option: string, pattern: RegExp): string => {
  const values = argv.filter((_, at) => argv[at - 1] === option);
  for (const value of values) {
    const found = pattern.exec(value)?.[1];
    if (found !== undefined) return found;
  }
  throw new Error(`the guest's QEMU has no ${option} like ${String(pattern)}`);
};

/** @param argv of a running guest's QEMU */
export const machineLike = (argv: readonly string[]): MachineLike => ({
  machineType: after(argv, "-machine", /^([^,]+)/),
  // "-v1" is QEMU's own numbering: libvirt's name without it means the same for this machine
  cpuModel: after(argv, "-cpu", /^([^,]+?)(?:-v1)?(?:,|$)/),
  memoryBytes: Number(after(argv, "-m", /size=(\d+)b/)),
  cpus: Number(after(argv, "-smp", /cpus=(\d+)/)),
  queues: argv.some((value) => /,queues=\d+/.test(value)) ? Number(after(argv, "-netdev", /,queues=(\d+)/)) : 1,
  mtu: Number(after(argv, "-device", /host_mtu=(\d+)/)),
});

export interface Domain {
  name: string;
  uuid: string;
  like: MachineLike;
  /** As libvirtd sees it. */
  disk: string;
  tap: string;
  mac: string;
}

/** No offloading: the userspace switch does not finish what a guest leaves to hardware; Drover's taps have none either. */
const offloads = (side: string): string => `<${side} csum='off' tso4='off' tso6='off' ecn='off' ufo='off'/>`;

export const domainXml = ({ name, uuid, like, disk, tap, mac }: Domain): string => `
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>${name}</name>
  <uuid>${uuid}</uuid>
  <memory unit='b'>${like.memoryBytes}</memory>
  <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>
  <vcpu>${like.cpus}</vcpu>
  <os><type arch='x86_64' machine='${like.machineType}'>hvm</type><boot dev='hd'/></os>
  <features><acpi/><apic/><vmport state='off'/><tcg><tb-cache unit='MiB'>32</tb-cache></tcg></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>${like.cpuModel}</model></cpu>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='none' io='threads' discard='unmap'/>
      <source file='${disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='ethernet'>
      <mac address='${mac}'/>
      <target dev='${tap}' managed='no'/>
      <model type='virtio'/>
      <driver name='qemu' queues='${like.queues}'>${offloads("host")}${offloads("guest")}</driver>
      <mtu size='${like.mtu}'/>
      <rom enabled='no'/>
    </interface>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='/var/log/${name}.console'/><target type='isa-serial' port='0'/></serial>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <memballoon model='none'/>
    <video><model type='none'/></video>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-trace'/>
    <qemu:arg value='vm_state_notify'/>
  </qemu:commandline>
</domain>
`;
