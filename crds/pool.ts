import { z } from "zod";
import { bytes, conditions, doc, type KindDefinition, nameRules, nodeLabels, oneOf, type Resource } from "./schema.ts";

const loop = z
  .object({
    size: bytes(
      "source.loop.size",
      "Size of the file, such as 20Gi. It can grow later, while in use; it can never shrink. Default: a fifth of the file system it lies on, at least 5Gi and at most 30Gi.",
      { rule: "quantity(self).compareTo(quantity('256Mi')) >= 0", message: "source.loop.size must be at least 256Mi" },
      { rule: "quantity(self).compareTo(quantity('1Pi')) <= 0", message: "source.loop.size must be at most 1Pi" },
      {
        rule: "quantity(self).compareTo(quantity(oldSelf)) >= 0",
        messageExpression: "'a pool cannot shrink (%s -> %s); make a new pool and migrate to it'.format([oldSelf, self])",
        message: "a pool cannot shrink; make a new pool and migrate to it",
      },
    ).optional(),
  })
  .meta(
    doc("A file of the pool's own on every selected node, used as a block device.", {
      rule: "!has(oldSelf.size) || has(self.size)",
      message: "source.loop.size cannot be taken away; leave it as it is or make it larger",
    }),
  );

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
          { rule: "!self.matches('(^|/)[.]{1,2}(/|$)')", message: "source.path must not contain . or .." },
          {
            rule: "!self.matches('^/+$') && !self.matches('^/+(proc|sys|dev|run|etc|boot|usr|var/lib/(drover|kubelet|containerd))(/|$)')",
            message: "source.path must be a directory of the pool's own, not one of the system's",
          },
        ),
      ),
  })
  .meta(
    doc(
      "Where the pool's bytes live: exactly one of loop and path.",
      {
        rule: "has(self.loop) != has(self.path)",
        message: "give exactly one of source.loop, source.device and source.path (source.device is not there yet)",
      },
      {
        rule: "has(self.loop) == has(oldSelf.loop) && (has(self.path) ? has(oldSelf.path) && self.path == oldSelf.path : !has(oldSelf.path))",
        message: "the source cannot change; make a new pool and migrate to it",
      },
    ),
  );

export const poolSpec = z
  .object({
    driver: oneOf(
      "driver",
      ["btrfs", "dir"],
      "What manages the pool: btrfs (instances share an image's blocks until they write; needs source.loop) or dir (plain files in a directory; needs source.path).",
      { rule: "self == oldSelf", message: "driver cannot change; make a new pool and migrate to it" },
    ),
    nodeSelector: z
      .object({
        matchLabels: nodeLabels("Labels that a node must have; all of them.").optional(),
      })
      .optional()
      .meta(doc("The nodes that have this pool. Default: every node that runs Drover.")),
    source,
    shared: z
      .boolean()
      .optional()
      .meta(
        doc(
          "true: source.path is one and the same directory on every selected node, such as a network file system that is mounted there. An instance with all its disks in such pools can start on any of these nodes, and a move does not copy them. Default: false.",
        ),
      ),
  })
  .meta(
    doc("What the pool should be.", {
      rule: "(has(self.shared) && self.shared) == (has(oldSelf.shared) && oldSelf.shared)",
      message: "shared cannot change; make a new pool and migrate to it",
    }),
  );

export const poolStatus = z
  .object({
    observedGeneration: z.int().optional().meta(doc("The generation that this status speaks of.")),
    conditions: conditions.optional(),
    size: z
      .string()
      .optional()
      .meta(doc("Bytes of all its nodes together, as text; of a shared pool the bytes that they share.")),
    used: z
      .string()
      .optional()
      .meta(doc("Bytes in use on all its nodes together, as text; of a shared pool those that they share.")),
    directory: z
      .string()
      .optional()
      .meta(
        doc("Which directory it is, of a pool that nodes share: that of the first node. A node that has another one is refused."),
      ),
    nodes: z.string().optional().meta(doc("Nodes where it is ready, of nodes that should have it, such as 3/3.")),
  })
  .meta(doc("What is known of it. Written by Drover."));

export type PoolSpec = z.infer<typeof poolSpec>;
export type PoolStatus = z.infer<typeof poolStatus>;
export type StoragePool = Resource<"StoragePool", PoolSpec, PoolStatus>;

export const poolKind: KindDefinition = {
  kind: "StoragePool",
  plural: "storagepools",
  singular: "storagepool",
  shortNames: ["dpool"],
  scope: "Cluster",
  description: "Storage on the cluster's nodes, from which instances get their disks.",
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
    ...nameRules("a pool's", 58),
    {
      rule: "self.spec.driver != 'btrfs' || has(self.spec.source.loop)",
      message: "driver btrfs needs source.loop; use driver dir for an existing directory",
    },
    {
      rule: "self.spec.driver != 'dir' || has(self.spec.source.path)",
      message: "driver dir needs source.path; use driver btrfs for a loop file",
    },
    {
      rule: "!has(self.spec.shared) || !self.spec.shared || has(self.spec.source.path)",
      message: "shared: true needs driver dir and source.path, the directory that all nodes share",
    },
  ],
};
