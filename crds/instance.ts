import { z } from "zod";
import { dataDisks } from "./data-disk.ts";
import {
  bytes,
  type CelRule,
  conditions,
  dnsLabel,
  doc,
  type KindDefinition,
  mapList,
  nameRules,
  nodeLabels,
  oneOf,
  type Resource,
  requiredByRule,
} from "./schema.ts";

const image = z
  .object({
    url: z
      .string()
      .max(2048)
      .optional()
      .meta(
        doc("Address of a qcow2 or raw disk image, such as https://images.example/debian.qcow2.", {
          rule: "self.matches('^https?://[^/@ ]+/[^ ]+$')",
          message: "image.url must be the http or https address of a file, without a user or password in it",
        }),
      ),
    checksum: z
      .string()
      .max(140)
      .optional()
      .meta(
        doc("Checksum of the file at url: sha256: and 64 hex digits, or sha512: and 128 hex digits.", {
          rule: "self.matches('^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$')",
          message: "image.checksum must be sha256: and 64 small hex digits, or sha512: and 128",
        }),
      ),
  })
  .meta(
    doc(
      "What the root disk is made from: the disk image at url, whose checksum is verified.",
      { rule: "has(self.url)", message: "image.url is required" },
      { rule: "!has(self.url) || has(self.checksum)", message: "image.url needs image.checksum (sha256:... or sha512:...)" },
      { rule: "self == oldSelf", message: "image cannot change after creation; make a new instance" },
    ),
  );

const rootDisk = z
  .object({
    pool: requiredByRule(
      dnsLabel(58, "The StoragePool that the root disk lies in. Required.", {
        rule: "self == oldSelf",
        message: "rootDisk.pool cannot change on a living instance; make a new instance",
      }),
    ),
    size: bytes(
      "rootDisk.size",
      "Size of the root disk, such as 10Gi; at least that of the image.",
      { rule: "quantity(self).compareTo(quantity('1Mi')) >= 0", message: "rootDisk.size must be at least 1Mi" },
      { rule: "quantity(self).compareTo(quantity('1Pi')) <= 0", message: "rootDisk.size must be at most 1Pi" },
      {
        rule: "quantity(self).compareTo(quantity(oldSelf)) >= 0",
        message: "a disk cannot shrink",
        messageExpression: "'a disk cannot shrink (%s -> %s)'.format([oldSelf, self])",
      },
      {
        rule: "quantity(self).compareTo(quantity(oldSelf)) <= 0",
        message: "rootDisk.size cannot change on a living instance; make a new instance",
      },
    ),
  })
  .meta(doc("The disk that the instance boots from.", { rule: "has(self.pool)", message: "rootDisk.pool is required" }));

const nic = z
  .object({
    name: dnsLabel(15, "Name of the NIC within the instance, such as eth0."),
    network: dnsLabel(63, "The Network, of the same namespace, that it is on."),
    mac: z
      .string()
      .max(17)
      .optional()
      .meta(
        doc(
          "Its hardware address, such as 52:54:00:aa:00:01. Default: made up once, then kept.",
          {
            rule: "self.matches('^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$')",
            message: "the mac must be six bytes in hex such as 52:54:00:aa:00:01",
          },
          {
            rule: "!self.matches('^.[13579bBdDfF]')",
            message: "the mac is a multicast address",
            messageExpression: "'the mac %s is a multicast address; its first byte must be even'.format([self])",
          },
          { rule: "self != '00:00:00:00:00:00'", message: "the mac must not be all zeros" },
        ),
      ),
    ipv4: z
      .string()
      .max(15)
      .optional()
      .meta(
        doc("Its IPv4 address. Default: given by the network, then kept.", {
          rule: "isIP(self) && ip(self).family() == 4",
          message: "ipv4 of a nic must be an IPv4 address such as 10.10.0.20",
        }),
      ),
    ipv6: z
      .string()
      .max(39)
      .optional()
      .meta(
        doc("Its IPv6 address. Default: given by the network, then kept.", {
          rule: "isIP(self) && ip(self).family() == 6",
          message: "ipv6 of a nic must be an IPv6 address such as fd42:10::20",
        }),
      ),
  })
  .meta(doc("A network card."));

/**
 * An atomic list, not one that is merged by name: a merged one would answer a name given twice with the API server's
 * own "duplicate entries for key", before any rule of ours is asked.
 */
const nics = z
  .array(nic)
  .max(8)
  .meta({
    ...doc(
      "Its network cards, in the order that the guest sees them.",
      {
        rule: "self.all(n, self.exists_one(m, m.name == n.name))",
        message: "two nics have the same name",
        messageExpression: "'two nics have the name %s'.format([self.filter(n, !self.exists_one(m, m.name == n.name))[0].name])",
      },
      {
        rule: "self.all(n, !has(n.mac) || self.exists_one(m, has(m.mac) && m.mac.lowerAscii() == n.mac.lowerAscii()))",
        message: "two nics have the same mac",
      },
      {
        rule: "self.all(n, oldSelf.all(o, o.name != n.name || (has(o.mac) ? has(n.mac) && n.mac == o.mac : !has(n.mac))))",
        message:
          "mac of a nic cannot change; remove the nic and add one (in a new instance: nics cannot change on a living instance)",
      },
    ),
    "x-kubernetes-list-type": "atomic",
  });

const toleration = z
  .object({
    key: z.string().max(317).optional().meta(doc("Taint key; none with operator Exists matches all.")),
    operator: z
      .enum(["Exists", "Equal"])
      .optional()
      .meta(doc("Exists asks for the key only, Equal for the value too. Default: Equal.")),
    value: z.string().max(63).optional().meta(doc("Taint value, for operator Equal.")),
    effect: z.enum(["NoSchedule", "PreferNoSchedule", "NoExecute"]).optional().meta(doc("Taint effect; none matches all.")),
  })
  .meta(
    doc(
      "A taint that is put up with.",
      {
        rule: "(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')",
        message: "a toleration without a key needs operator: Exists",
      },
      {
        rule: "!(has(self.operator) && self.operator == 'Exists' && has(self.value) && self.value != '')",
        message: "a toleration with operator: Exists has no value",
      },
    ),
  );

const placement = z
  .object({
    nodeSelector: nodeLabels("Labels that its node must have, such as disk: nvme.").optional(),
    tolerations: z
      .array(toleration)
      .max(32)
      .optional()
      .meta({ ...doc("Taints of nodes that it may run on all the same."), "x-kubernetes-list-type": "atomic" }),
    priorityClassName: z.string().max(253).optional().meta(doc("PriorityClass of its claim pod. Default: the chart's.")),
  })
  .meta(doc("Where it may run, as in a pod."));

/** Transition rule of an optional field: it must neither change nor come nor go. */
const fixed = (field: string): CelRule => ({
  rule: `has(self.${field}) ? has(oldSelf.${field}) && self.${field} == oldSelf.${field} : !has(oldSelf.${field})`,
  message: `${field} cannot change on a living instance; make a new instance`,
});

export const instanceSpec = z
  .object({
    type: oneOf("type", ["VirtualMachine"], "What it is: VirtualMachine, a guest of QEMU with a kernel of its own.", {
      rule: "self == oldSelf",
      message: "type cannot change; make a new instance",
    }),
    power: z
      .enum(["Running", "Stopped"])
      .default("Running")
      .meta(doc("Whether it should run. Stopped keeps its disks and addresses and gives back its memory. Default: Running.")),
    restart: z
      .enum(["Always", "OnFailure", "Never"])
      .default("OnFailure")
      .meta(
        doc(
          "What follows when the guest ends by itself: Always starts it again, OnFailure only after a crash, Never leaves it. Default: OnFailure.",
        ),
      ),
    restartedAt: z
      .string()
      .max(64)
      .optional()
      .meta(doc("Any new value, usually the time, stops the guest cleanly and starts it again.")),
    onDrain: oneOf(
      "onDrain",
      ["LiveMigrate", "Stop", "Refuse"],
      "What follows when its node is drained: LiveMigrate moves it to another node, Stop shuts it down cleanly and starts it elsewhere or here again when that can be, Refuse lets the drain wait. Default: LiveMigrate.",
    ).default("LiveMigrate"),
    image,
    cpu: z
      .int()
      .meta(
        doc(
          "Virtual CPUs.",
          { rule: "self >= 1 && self <= 240", message: "cpu must be between 1 and 240" },
          { rule: "self == oldSelf", message: "cpu cannot change on a living instance; make a new instance" },
        ),
      ),
    memory: bytes(
      "memory",
      "Memory of the guest, such as 2Gi.",
      { rule: "quantity(self).compareTo(quantity('64Mi')) >= 0", message: "memory must be at least 64Mi" },
      { rule: "quantity(self).compareTo(quantity('16Ti')) <= 0", message: "memory must be at most 16Ti" },
      {
        rule: "quantity(self).compareTo(quantity(oldSelf)) == 0",
        message: "memory cannot change on a living instance; make a new instance",
      },
    ),
    rootDisk,
    disks: dataDisks.optional(),
    nics: nics.optional(),
    placement: placement.optional(),
  })
  .meta(doc("What the instance should be.", fixed("disks"), fixed("nics"), fixed("placement")));

const guestNic = z.object({
  name: z.string().meta(doc("The NIC.")),
  tap: z.string().meta(doc("Its tap on the node.")),
  installed: z.boolean().meta(doc("Whether OVN has installed its flows on the node.")),
});

/** Written by the agent only. */
export const guestStatus = z
  .object({
    state: z
      .enum(["Preparing", "Starting", "Running", "Stopping", "Stopped", "Failed", "Released"])
      .meta(doc("What the instance's processes do; Released: nothing of it is left on the node.")),
    reason: z.string().optional().meta(doc("One CamelCase word for why, such as MemoryLimit or ChecksumMismatch.")),
    message: z.string().max(4096).optional().meta(doc("Why, for a person.")),
    claimUid: z.string().optional().meta(doc("The claim pod in whose cgroup it runs.")),
    pid: z.int().optional().meta(doc("QEMU's process on the node.")),
    startedAt: z
      .string()
      .optional()
      .meta({ ...doc("When QEMU started."), format: "date-time" }),
    restarts: z.int().optional().meta(doc("Starts after the guest ended by itself.")),
    restartedAt: z.string().optional().meta(doc("The spec.restartedAt that was acted on.")),
    accelerator: z.enum(["KVM", "TCG"]).optional().meta(doc("How it runs.")),
    machineType: z.string().optional().meta(doc("QEMU machine type; kept for the life of the guest.")),
    cpuModel: z.string().optional().meta(doc("CPU model; kept for the life of the guest.")),
    firmware: z.enum(["SeaBIOS"]).optional().meta(doc("Its firmware.")),
    qemuVersion: z.string().optional().meta(doc("Version of the QEMU that runs it.")),
    runtimeVersion: z.string().optional().meta(doc("Version of the runtime that runs it.")),
    blockers: z
      .array(z.string().max(512))
      .max(8)
      .optional()
      .meta({
        ...doc("Why it cannot be moved while it runs, in QEMU's words. None: it can."),
        "x-kubernetes-list-type": "atomic",
      }),
    updateBlockers: z
      .array(z.string().max(512))
      .max(8)
      .optional()
      .meta({
        ...doc("Why its QEMU cannot be replaced in place. None: it can."),
        "x-kubernetes-list-type": "atomic",
      }),
    agentConnected: z.boolean().optional().meta(doc("Whether a guest agent answers in it.")),
    image: z
      .object({
        ready: z.boolean().meta(doc("Whether the image is on the node.")),
        reason: z.string().optional().meta(doc("Why it is not.")),
        message: z.string().max(4096).optional().meta(doc("Why it is not, for a person.")),
      })
      .optional()
      .meta(doc("Its image on the node.")),
    disks: z
      .object({
        ready: z.boolean().meta(doc("Whether its disks are there.")),
        reason: z.string().optional().meta(doc("Why they are not.")),
        message: z.string().max(4096).optional().meta(doc("Why they are not, for a person.")),
      })
      .optional()
      .meta(doc("Its disks.")),
    nics: z
      .array(guestNic)
      .max(8)
      .optional()
      .meta(mapList("Its network cards on the node.", ["name"])),
  })
  .meta(doc("What the agent of its node says of it."));

const nicStatus = z.object({
  name: z.string().meta(doc("The NIC.")),
  network: z.string().meta(doc("Its network.")),
  mac: z.string().meta(doc("Its hardware address.")),
  ipv4: z.string().optional().meta(doc("Its IPv4 address.")),
  ipv6: z.string().optional().meta(doc("Its IPv6 address.")),
  port: z.string().meta(doc("Its logical switch port in OVN.")),
  mtu: z.int().meta(doc("Largest packet in bytes.")),
});

const diskStatus = z.object({
  name: z.string().meta(doc("The disk, such as root.")),
  pool: z.string().meta(doc("The StoragePool that it lies in.")),
});

const pastMigration = z.object({
  name: z.string().meta(doc("The Migration.")),
  uid: z.string().meta(doc("Its uid.")),
  phase: z.enum(["Succeeded", "Failed", "Cancelled"]).meta(doc("How it ended.")),
  reason: z.string().optional().meta(doc("One CamelCase word for why.")),
  from: z.string().optional().meta(doc("The node that it left.")),
  to: z.string().optional().meta(doc("The node that it went to.")),
  pause: z.string().optional().meta(doc("How long the guest stood still.")),
  endedAt: z.string().meta({ ...doc("When it ended."), format: "date-time" }),
});

export const instanceStatus = z
  .object({
    observedGeneration: z.int().optional().meta(doc("The generation that this status speaks of.")),
    phase: z
      .enum(["Pending", "Starting", "Running", "Migrating", "Stopping", "Stopped", "Error", "Unknown"])
      .optional()
      .meta(doc("Where it is in its life. Unknown: its node cannot be asked, which is not a failure.")),
    reason: z.string().optional().meta(doc("One CamelCase word for why it is in this phase.")),
    conditions: conditions.optional(),
    nodeName: z.string().optional().meta(doc("The node that it runs on, and that holds its disks.")),
    claim: z
      .object({
        name: z.string().meta(doc("The pod that holds its place on the node.")),
        serial: z.int().meta(doc("Counts its claims.")),
        uid: z.string().optional().meta(doc("The pod's uid, once it is bound.")),
        node: z.string().optional().meta(doc("The node it is bound to.")),
        countsDisks: z.boolean().optional().meta(doc("It came by a move, and the room of the disks is counted to it.")),
      })
      .optional()
      .meta(doc("Its claim pod. While the instance is stopped it has no uid, and names the next claim.")),
    ip: z.string().optional().meta(doc("Its first address.")),
    nics: z
      .array(nicStatus)
      .max(8)
      .optional()
      .meta(mapList("Addresses of its network cards; given once, then kept.", ["name"])),
    disks: z
      .array(diskStatus)
      .max(16)
      .optional()
      .meta(mapList("Where its disks lie, if a move has put them elsewhere than the spec says.", ["name"])),
    migration: z
      .object({
        name: z.string().meta(doc("The Migration.")),
        uid: z.string().meta(doc("Its uid.")),
      })
      .optional()
      .meta(doc("The Migration that moves it now.")),
    lastMigration: pastMigration.optional().meta(doc("The last move that ended.")),
    earlierMigrations: z
      .array(pastMigration)
      .max(4)
      .optional()
      .meta({ ...doc("Moves before the last, the newest first."), "x-kubernetes-list-type": "atomic" }),
    guest: guestStatus.optional(),
  })
  .meta(doc("What is known of it. Written by Drover."));

export type InstanceSpec = z.infer<typeof instanceSpec>;
export type InstanceStatus = z.infer<typeof instanceStatus>;
export type GuestStatus = z.infer<typeof guestStatus>;
export type NicSpec = z.infer<typeof nic>;
export type NicStatus = z.infer<typeof nicStatus>;
export type PastMigration = z.infer<typeof pastMigration>;
export type Instance = Resource<"Instance", InstanceSpec, InstanceStatus>;

export const instanceKind: KindDefinition = {
  kind: "Instance",
  plural: "instances",
  singular: "instance",
  shortNames: ["inst"],
  scope: "Namespaced",
  description: "A virtual machine on one of the cluster's nodes.",
  spec: instanceSpec,
  status: instanceStatus,
  selectableFields: [".status.nodeName"],
  columns: [
    { name: "Type", type: "string", jsonPath: ".spec.type" },
    { name: "Phase", type: "string", jsonPath: ".status.phase" },
    { name: "Node", type: "string", jsonPath: ".status.nodeName" },
    { name: "IP", type: "string", jsonPath: ".status.ip" },
    { name: "Age", type: "date", jsonPath: ".metadata.creationTimestamp" },
    { name: "CPU", type: "integer", jsonPath: ".spec.cpu", priority: 1 },
    { name: "Memory", type: "string", jsonPath: ".spec.memory", priority: 1 },
    { name: "Pool", type: "string", jsonPath: ".spec.rootDisk.pool", priority: 1 },
    { name: "Image", type: "string", jsonPath: ".spec.image.url", priority: 1 },
    { name: "QEMU", type: "string", jsonPath: ".status.guest.qemuVersion", priority: 1 },
    { name: "Reason", type: "string", jsonPath: ".status.reason", priority: 1 },
  ],
  rules: nameRules("an instance's", 40),
};
