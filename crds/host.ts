import { z } from "zod";
import { conditions, doc, mapList, type KindDefinition, type Resource } from "./schema.ts";

const hostPool = z.object({
  name: z.string().meta(doc("The StoragePool.")),
  ready: z.boolean().meta(doc("Whether disks can be made on it here.")),
  reason: z.string().optional().meta(doc("One CamelCase word for why it is not ready.")),
  message: z.string().optional().meta(doc("Why it is not ready, for a person.")),
  sizeBytes: z.int().optional().meta(doc("Its size on this node.")),
  usedBytes: z.int().optional().meta(doc("What is in use of it, images included.")),
  directory: z.string().optional().meta(doc("Which directory it is, of a pool that nodes share; the same on all of them.")),
});

const hostRuntime = z.object({
  version: z.string().max(128).meta(doc("Version of the runtime: the name of its directory on the node.")),
  qemuVersion: z.string().optional().meta(doc("Version of the QEMU in it.")),
  machineTypes: z
    .array(z.string())
    .max(256)
    .optional()
    .meta({ ...doc("Versioned machine types that it knows."), "x-kubernetes-list-type": "atomic" }),
  current: z.boolean().meta(doc("Whether instances that start now get it.")),
  instances: z.int().meta(doc("Instances that run in it.")),
});

export const hostStatus = z
  .object({
    conditions: conditions.optional(),
    accelerator: z
      .enum(["KVM", "TCG"])
      .optional()
      .meta(doc("How instances run here: KVM (proven by running a guest) or TCG (emulation).")),
    acceleratorMessage: z.string().optional().meta(doc("Why it is not KVM.")),
    qemuVersion: z.string().optional().meta(doc("Version of QEMU for instances that start now.")),
    runtimeVersion: z.string().optional().meta(doc("Version of Drover's runtime for instances that start now.")),
    machineTypes: z.array(z.string()).max(256).optional().meta(doc("Versioned machine types that this QEMU knows.")),
    cpuModel: z.string().optional().meta(doc("CPU model that instances which start now get.")),
    ovsDatapath: z.enum(["kernel", "userspace"]).optional().meta(doc("Datapath of the node's switch.")),
    pools: z
      .array(hostPool)
      .max(256)
      .optional()
      .meta(mapList("The storage pools of this node.", ["name"])),
    poolNames: z.string().optional().meta(doc("Names of the ready pools, as text.")),
    instances: z.int().optional().meta(doc("Instances that run here.")),
    runtimes: z
      .array(hostRuntime)
      .max(64)
      .optional()
      .meta(mapList("The runtimes that lie on this node.", ["version"])),
    updated: z
      .string()
      .optional()
      .meta(doc("Instances here that run in the current runtime, of all that run here, such as 12/40.")),
  })
  .meta(doc("What is known of it. Written by Drover."));

export type HostPool = z.infer<typeof hostPool>;
export type HostRuntime = z.infer<typeof hostRuntime>;
export type HostStatus = z.infer<typeof hostStatus>;
export type Host = Resource<"Host", undefined, HostStatus>;

export const hostKind: KindDefinition = {
  kind: "Host",
  plural: "hosts",
  singular: "host",
  shortNames: ["dhost"],
  scope: "Cluster",
  description: "What a node can do for instances. Written by the node's agent only; named as its Node.",
  status: hostStatus,
  columns: [
    { name: "Accelerator", type: "string", jsonPath: ".status.accelerator" },
    { name: "QEMU", type: "string", jsonPath: ".status.qemuVersion" },
    { name: "Runtime", type: "string", jsonPath: ".status.runtimeVersion" },
    { name: "Pools", type: "string", jsonPath: ".status.poolNames" },
    { name: "Instances", type: "integer", jsonPath: ".status.instances" },
    { name: "Updated", type: "string", jsonPath: ".status.updated" },
    { name: "Ready", type: "string", jsonPath: ".status.conditions[?(@.type=='Ready')].status" },
    { name: "Age", type: "date", jsonPath: ".metadata.creationTimestamp" },
  ],
};
