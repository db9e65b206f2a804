import { z } from "zod";
import { bytes, conditions, doc, type KindDefinition, type Resource } from "./schema.ts";

const loop = z
  .object({
    size: bytes(
      "Size of the file, such as 20Gi. It can grow later, while in use; it can never shrink. Default: a fifth of the file system it lies on, at least 5Gi and at most 30Gi.",
      { rule: "quantity(self).compareTo(quantity('256Mi')) >= 0", message: "source.loop.size must be at least 256Mi" },
      {
        rule: "quantity(self).compareTo(quantity(oldSelf)) >= 0",
        messageExpression: "'a pool cannot shrink (%s -> %s); make a new pool and migrate to it'.format([oldSelf, self])",
        message: "a pool cannot shrink; make a new pool and migrate to it",
      },
    ).optional(),
  })
  .meta(doc("A file of the pool's own on every selected node, used as a block device."));

const source = z
  .object({
    loop: loop.optional(),
    path: z
      .string()
      .max(255)
      .optional()
      .meta(
        doc(
          "An existing directory on every selected node.",
          { rule: "self.startsWith('/')", message: "source.path must be absolute" },
          { rule: "!self.split('/').exists(p, p == '..' || p == '.')", message: "source.path must not contain . or .." },
        ),
      ),
  })
  .meta(
    doc(
      "Where the pool's bytes live: exactly one of loop and path.",
      { rule: "has(self.loop) != has(self.path)", message: "give exactly one of source.loop, source.device and source.path" },
      {
        rule: "has(self.loop) == has(oldSelf.loop) && has(self.path) == has(oldSelf.path) && (!has(self.path) || self.path == oldSelf.path)",
        message: "the source cannot change; make a new pool and migrate to it",
      },
    ),
  );

export const poolSpec = z
  .object({
    driver: z.enum(["btrfs", "dir"]).meta(
      doc("What manages the pool: btrfs (clones by reflink, needs source.loop) or dir (plain files in a directory).", {
        rule: "self == oldSelf",
        message: "driver cannot change; make a new pool and migrate to it",
      }),
    ),
    nodeSelector: z
      .object({
        matchLabels: z.record(z.string(), z.string()).optional().meta(doc("Labels that a node must have.")),
      })
      .optional()
      .meta(doc("The nodes that have this pool. Default: every node that runs Drover.")),
    source,
  })
  .meta(doc("What the pool should be."));

export const poolStatus = z.object({
  observedGeneration: z.int().optional().meta(doc("The generation that this status speaks of.")),
  conditions: conditions.optional(),
  size: z.string().optional().meta(doc("Bytes of all its nodes together, as text.")),
  used: z.string().optional().meta(doc("Bytes in use on all its nodes together, as text.")),
  nodes: z.string().optional().meta(doc("Nodes where it is ready, of nodes that should have it, such as 3/3.")),
});

export type PoolSpec = z.infer<typeof poolSpec>;
export type PoolStatus = z.infer<typeof poolStatus>;
export type StoragePool = Resource<"StoragePool", PoolSpec, PoolStatus>;

export const poolKind: KindDefinition = {
  kind: "StoragePool",
  plural: "storagepools",
  singular: "storagepool",
  shortNames: ["dpool"],
  scope: "Cluster",
  description: "Local storage on the cluster's nodes, from which instances get their disks.",
  spec: poolSpec,
  status: poolStatus,
  columns: [
    { name: "Driver", type: "string", jsonPath: ".spec.driver" },
    { name: "Size", type: "string", jsonPath: ".status.size" },
    { name: "Used", type: "string", jsonPath: ".status.used" },
    { name: "Nodes", type: "string", jsonPath: ".status.nodes" },
    { name: "Ready", type: "string", jsonPath: ".status.conditions[?(@.type=='Ready')].status" },
    { name: "Age", type: "date", jsonPath: ".metadata.creationTimestamp" },
  ],
  rules: [
    { rule: "self.metadata.name.size() <= 58", message: "a pool's name can be at most 58 characters long" },
    {
      rule: "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
      message: "a pool's name must be a DNS label: small letters, digits and -, no dots",
    },
    {
      rule: "self.spec.driver != 'btrfs' || has(self.spec.source.loop)",
      message: "driver btrfs needs source.loop; use driver dir for an existing directory",
    },
    {
      rule: "self.spec.driver != 'dir' || has(self.spec.source.path)",
      message: "driver dir needs source.path; use driver btrfs for a loop file",
    },
  ],
};
