import { z } from "zod";
import { bytes, conditions, dnsLabel, doc, mapList, type KindDefinition, type Resource } from "./schema.ts";

const image = z
  .object({
    url: z
      .string()
      .max(2048)
      .optional()
      .meta(
        doc("Address of a qcow2 or raw disk image.", {
          rule: "self.matches('^https?://[^/ ]+/.*$')",
          message: "image.url must be an http or https address",
        }),
      ),
    checksum: z
      .string()
      .max(140)
      .regex(/^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$/)
      .optional()
      .meta(doc("Checksum of the file at url, as sha256:<64 hex digits> or sha512:<128 hex digits>.")),
  })
  .meta(
    doc(
      "What the root disk is made from.",
      { rule: "has(self.url)", message: "give image.url" },
      { rule: "!has(self.url) || has(self.checksum)", message: "image.url needs image.checksum (sha256:... or sha512:...)" },
      { rule: "self == oldSelf", message: "image cannot change after creation; make a new instance" },
    ),
  );

const rootDisk = z
  .object({
    pool: dnsLabel(58, "The StoragePool that the root disk lies in.").optional(),
    size: bytes(
      "Size of the root disk; at least that of the image.",
      { rule: "quantity(self).compareTo(quantity('1Mi')) >= 0", message: "rootDisk.size must be at least 1Mi" },
      {
        rule: "quantity(self).compareTo(quantity(oldSelf)) >= 0",
        message: "a disk cannot shrink",
        messageExpression: "'a disk cannot shrink (%s -> %s)'.format([oldSelf, self])",
      },
    ),
  })
  .meta(
    doc(
      "The disk that the instance boots from.",
      { rule: "has(self.pool)", message: "rootDisk.pool is required" },
      { rule: "self == oldSelf", message: "rootDisk cannot change after creation; make a new instance" },
    ),
  );

const nic = z
  .object({
    name: dnsLabel(15, "Name of the NIC within the instance."),
    network: dnsLabel(63, "The Network, of the same namespace, that it is on."),
    mac: z
      .string()
      .regex(/^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$/)
      .optional()
      .meta(
        doc(
          "Its hardware address. Default: made up once, then kept.",
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
          message: "nic ipv4 is not an IPv4 address",
        }),
      ),
    ipv6: z
      .string()
      .max(39)
      .optional()
      .meta(
        doc("Its IPv6 address. Default: given by the network, then kept.", {
          rule: "isIP(self) && ip(self).family() == 6",
          message: "nic ipv6 is not an IPv6 address",
        }),
      ),
  })
  .meta(doc("A network card."));

const placement = z
  .object({
    nodeSelector: z.record(z.string(), z.string()).optional().meta(doc("Labels that its node must have.")),
    tolerations: z
      .array(
        z.object({
          key: z.string().optional().meta(doc("Taint key; empty with operator Exists matches all.")),
          operator: z.enum(["Exists", "Equal"]).optional().meta(doc("Default: Equal.")),
          value: z.string().optional().meta(doc("Taint value.")),
          effect: z
            .enum(["NoSchedule", "PreferNoSchedule", "NoExecute"])
            .optional()
            .meta(doc("Taint effect; empty matches all.")),
        }),
      )
      .max(64)
      .optional()
      .meta(doc("Taints of nodes that it may run on all the same.")),
    priorityClassName: z.string().max(253).optional().meta(doc("PriorityClass of its claim. Default: the chart's.")),
  })
  .meta(doc("Where it may run, as in a pod."));

export const instanceSpec = z
  .object({
    type: z
      .enum(["VirtualMachine"])
      .meta(doc("What it is.", { rule: "self == oldSelf", message: "type cannot change; make a new instance" })),
    power: z.enum(["Running", "Stopped"]).default("Running").meta(doc("Whether it should run. Default: Running.")),
    restart: z
      .enum(["Always", "OnFailure", "Never"])
      .default("OnFailure")
      .meta(
        doc(
          "What follows when the guest ends by itself: Always starts it again, OnFailure only after a crash, Never leaves it. Default: OnFailure.",
        ),
      ),
    restartedAt: z.string().max(64).optional().meta(doc("Any new value stops the guest cleanly and starts it again.")),
    image,
    cpu: z.int().min(1).max(256).meta(doc("Virtual CPUs.")),
    memory: bytes("Memory of the guest, such as 2Gi.", {
      rule: "quantity(self).compareTo(quantity('64Mi')) >= 0",
      message: "memory must be at least 64Mi",
    }),
    rootDisk,
    nics: z
      .array(nic)
      .max(8)
      .optional()
      .meta(mapList("Its network cards, in the order that the guest sees them.", ["name"])),
    placement: placement.optional(),
  })
  .meta(doc("What the instance should be."));

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

export const instanceStatus = z.object({
  observedGeneration: z.int().optional().meta(doc("The generation that this status speaks of.")),
  phase: z
    .enum(["Pending", "Starting", "Running", "Stopping", "Stopped", "Error", "Unknown"])
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
    })
    .optional()
    .meta(doc("Its claim pod; none while it is stopped.")),
  ip: z.string().optional().meta(doc("Its first address.")),
  nics: z
    .array(nicStatus)
    .max(8)
    .optional()
    .meta(mapList("Addresses of its network cards; given once, then kept.", ["name"])),
  guest: guestStatus.optional(),
});

export type InstanceSpec = z.infer<typeof instanceSpec>;
export type InstanceStatus = z.infer<typeof instanceStatus>;
export type GuestStatus = z.infer<typeof guestStatus>;
export type NicSpec = z.infer<typeof nic>;
export type NicStatus = z.infer<typeof nicStatus>;
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
  rules: [
    { rule: "self.metadata.name.size() <= 40", message: "an instance's name can be at most 40 characters long" },
    {
      rule: "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
      message: "an instance's name must be a DNS label: small letters, digits and -, no dots",
    },
  ],
};
