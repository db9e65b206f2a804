import { z } from "zod";
import {
  bytes,
  conditions,
  dnsLabel,
  doc,
  type KindDefinition,
  mapList,
  nameRules,
  nodeLabels,
  oneOf,
  requiredByRule,
  type Resource,
} from "./schema.ts";

const DURATION = "self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$')";

/** A span of time such as 300ms or 30m. The rules may call `duration(self)`. */
const span = (name: string, description: string, least: string, most: string) =>
  z
    .string()
    .max(20)
    .meta(
      doc(
        description,
        { rule: DURATION, message: `${name} must be a time such as 300ms, 30s or 30m` },
        { rule: `!${DURATION} || duration(self) >= duration('${least}')`, message: `${name} must be at least ${least}` },
        { rule: `!${DURATION} || duration(self) <= duration('${most}')`, message: `${name} must be at most ${most}` },
      ),
    );

const target = z
  .object({
    node: z
      .string()
      .max(253)
      .optional()
      .meta(
        doc("Name of the node to move to. Default: kube-scheduler chooses.", {
          rule: "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
          message: "target.node must be the name of a Node",
        }),
      ),
    nodeSelector: nodeLabels(
      "Labels that the node to move to must have, beside those of the instance's own placement.",
    ).optional(),
    pool: dnsLabel(58, "The StoragePool for its root disk at the target. Default: the pool that it lies in now.").optional(),
  })
  .meta(doc("Where to. Nothing here: kube-scheduler chooses another node."));

const policy = z
  .object({
    maxPause: span(
      "policy.maxPause",
      "The longest that the guest may stand still at the end, such as 300ms. It is not paused before what is left fits. Default: the chart's.",
      "1ms",
      "1h",
    ).optional(),
    maxBytesPerSecond: bytes(
      "policy.maxBytesPerSecond",
      "Most that memory and disks together may take of the network. Default: the chart's.",
      {
        rule: "quantity(self).compareTo(quantity('1Mi')) >= 0",
        message: "policy.maxBytesPerSecond must be at least 1Mi",
      },
    ).optional(),
    onStall: oneOf(
      "onStall",
      ["Throttle", "PostCopy", "Abort"],
      "What to do when the guest writes its memory faster than it can be sent: Throttle slows its CPUs, PostCopy lets it run at the target before all its memory is there, Abort gives up. Default: the chart's.",
    ).optional(),
    timeout: span(
      "policy.timeout",
      "How long copying may take, such as 30m; then the move is given up. Default: the chart's.",
      "10s",
      "720h",
    ).optional(),
  })
  .meta(doc("How the move may be done."));

const SAME = "a migration cannot be changed; set cancel: true to cancel it";
const fixed = ["target", "policy", "priority", "runtime"].map((field) => ({
  rule: `has(self.${field}) ? has(oldSelf.${field}) && self.${field} == oldSelf.${field} : !has(oldSelf.${field})`,
  message: SAME,
}));

/** What has no meaning where nothing leaves its node; of policy, what only a wire needs. */
const inPlace = [
  {
    rule: "self.mode != 'InPlace' || !has(self.target)",
    message: "an InPlace migration stays on its node: leave target out, or use mode: Live",
  },
  {
    rule: "self.mode != 'InPlace' || !has(self.policy) || !has(self.policy.maxBytesPerSecond)",
    message: "an InPlace migration sends nothing over the network: leave policy.maxBytesPerSecond out",
  },
  {
    rule: "self.mode != 'InPlace' || !has(self.policy) || !has(self.policy.onStall)",
    message: "an InPlace migration copies no memory, and cannot stall: leave policy.onStall out",
  },
  {
    rule: "self.mode != 'InPlace' || !has(self.keep)",
    message: "an InPlace migration leaves nothing to decide: leave keep out",
  },
  {
    rule: "self.mode == 'InPlace' || !has(self.runtime)",
    message: "runtime is for mode: InPlace; a guest that moves takes the current runtime of the node that it comes to",
  },
];

export const migrationSpec = z
  .object({
    instance: requiredByRule(
      dnsLabel(40, "The Instance to move, of the same namespace. Required.", { rule: "self == oldSelf", message: SAME }),
    ),
    target: target.optional(),
    mode: oneOf(
      "mode",
      ["Live", "Cold", "InPlace"],
      "Live moves a running guest, which runs on; Cold moves the disks of a stopped one; InPlace replaces the QEMU under a running guest, on its own node. Default: Live.",
      { rule: "self == oldSelf", message: SAME },
    ).default("Live"),
    policy: policy.optional(),
    runtime: z
      .string()
      .max(128)
      .optional()
      .meta(
        doc(
          "Only with mode: InPlace: the version of Drover's runtime to go to, one of those in status.runtimes of the node's Host. Default: the node's current one.",
          {
            rule: "self.matches('^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$')",
            message: "runtime must be the version of a runtime of the node, as its Host names it (kubectl get dhost)",
          },
        ),
      ),
    priority: oneOf(
      "priority",
      ["Drain", "User", "Rebalance"],
      "Whose turn comes first when moves have to wait: those of a drain, then those of users, then those that only rebalance. Drain is for Drover itself. Default: User.",
    ).optional(),
    cancel: z
      .boolean()
      .optional()
      .meta(
        doc(
          "true gives the move up, if it is not too late. The status says which of three came true: Cancelled, Succeeded (too late), Failed.",
        ),
      ),
    keep: oneOf(
      "keep",
      ["Source", "Target"],
      "Only for a move whose condition NeedsDecision is True, because a node died at the one moment when nobody can tell which copy is newer: the copy that shall live. What the other one wrote is lost.",
    ).optional(),
  })
  .meta(
    doc(
      "What to move, and where to.",
      { rule: "has(self.instance)", message: "instance is required" },
      ...fixed,
      ...inPlace,
      {
        rule: "!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",
        message: "a cancelled migration cannot be taken up again; make a new one",
      },
      {
        rule: "!has(oldSelf.keep) || (has(self.keep) && self.keep == oldSelf.keep)",
        message: "the decision which copy lives cannot be changed",
      },
    ),
  );

/**
 * Who may run the guest. The one field that several write: by a JSON patch that tests the value it replaces.
 * Copying: the source runs. Handover: the source may pause, and once it has noted that it is gone, the target may run.
 * Target: the target may run. Done: it runs, the source's copy may go. Source: the move is given up, the source runs.
 */
export const handoverStates = ["Copying", "Handover", "Target", "Done", "Source"] as const;
export type HandoverState = (typeof handoverStates)[number];

const handover = z
  .object({
    attempt: z.int().meta(doc("Counts the attempts; each has a target of its own.")),
    state: z.enum(handoverStates).meta(doc("Who may run the guest.")),
  })
  .meta(doc("Who may run the guest: decided by whoever changes this first."));

const disk = z.object({
  name: z.string().meta(doc("The disk, such as root.")),
  sourcePool: z.string().meta(doc("The pool that it lies in.")),
  targetPool: z.string().meta(doc("The pool that it will lie in.")),
  sizeBytes: z.int().meta(doc("Its size.")),
  copy: z.boolean().meta(doc("Whether its bytes are copied; not where both nodes share the pool.")),
});

const resolvedPolicy = z
  .object({
    maxPauseMs: z.int().meta(doc("Longest pause of the guest.")),
    maxBytesPerSecond: z.int().optional().meta(doc("Most bytes a second of memory and disks together; none: no limit.")),
    onStall: z.enum(["Throttle", "PostCopy", "Abort"]).meta(doc("What to do when the guest writes faster than the wire.")),
    timeoutMs: z.int().meta(doc("How long copying may take.")),
    tls: z.boolean().meta(doc("Whether memory and disks are encrypted on their way.")),
    connections: z.int().optional().meta(doc("Connections that the memory goes by at once, where they are more than one.")),
  })
  .meta(doc("The policy with the chart's defaults filled in."));

const runtime = (description: string) =>
  z
    .object({
      version: z.string().meta(doc("Version of Drover's runtime.")),
      qemu: z.string().optional().meta(doc("Version of the QEMU in it.")),
    })
    .meta(doc(description));

const counters = {
  doneBytes: z.int().meta(doc("Bytes moved.")),
  totalBytes: z.int().meta(doc("Bytes to move, as known now.")),
};

/** Written by the agent of the source node. */
export const migrationSource = z
  .object({
    attempt: z.int().meta(doc("The attempt that this speaks of.")),
    state: z
      .enum(["Waiting", "CopyingDisk", "CopyingMemory", "SwitchingOver", "Completed", "GivenUp", "Released"])
      .meta(
        doc(
          "What the source does. Completed: the guest has left; GivenUp: it runs on here; Released: nothing of it is left here.",
        ),
      ),
    reason: z.string().optional().meta(doc("One CamelCase word for why.")),
    message: z.string().max(4096).optional().meta(doc("Why, for a person.")),
    retryable: z.boolean().optional().meta(doc("Whether what made it give up can pass.")),
    progress: z.string().optional().meta(doc("Bytes moved of bytes to move, in percent.")),
    memory: z.string().optional().meta(doc("Memory moved of memory to move.")),
    disk: z.string().optional().meta(doc("Disk moved of disk to move.")),
    rate: z.string().optional().meta(doc("Bytes a second.")),
    pause: z.string().optional().meta(doc("How long the guest stood still.")),
    memoryCounters: z
      .object({
        ...counters,
        remainingBytes: z.int().meta(doc("Bytes still to send in this round.")),
        bytesPerSecond: z.int().meta(doc("Rate of sending.")),
        dirtyBytesPerSecond: z.int().meta(doc("Rate at which the guest writes its memory.")),
        rounds: z.int().meta(doc("Passes over the memory.")),
        throttlePercent: z.int().optional().meta(doc("By how much its CPUs are slowed.")),
      })
      .optional()
      .meta(doc("The memory, from QEMU's own counters.")),
    diskCounters: z.object(counters).optional().meta(doc("The disks, from QEMU's own counters.")),
    expectedPauseMs: z.int().optional().meta(doc("How long the guest would stand still if it were switched over now.")),
    stalled: z.string().max(1024).optional().meta(doc("Why memory does not converge, with figures, and what is done about it.")),
    pauseMs: z.number().optional().meta(doc("How long the guest stood still: from its stop here until it ran at the target.")),
    qemuDowntimeMs: z.int().optional().meta(doc("The same by QEMU's count, until its part was done.")),
    timeline: z
      .array(
        z.object({
          mark: z.string().meta(doc("The step.")),
          ms: z.number().meta(doc("When it was done, counted from the guest's stop.")),
        }),
      )
      .max(32)
      .optional()
      .meta({ ...doc("The switchover, step by step."), "x-kubernetes-list-type": "atomic" }),
  })
  .meta(doc("What the agent of the source node says. Written by it."));

/** Written by the agent of the target node. */
export const migrationTarget = z
  .object({
    attempt: z.int().meta(doc("The attempt that this speaks of.")),
    state: z
      .enum(["Preparing", "Ready", "Running", "GivenUp", "Released"])
      .meta(
        doc(
          "What the target does. Ready: it takes what the source sends; GivenUp: it takes no more; Released: nothing of it is left here.",
        ),
      ),
    reason: z.string().optional().meta(doc("One CamelCase word for why.")),
    message: z.string().max(4096).optional().meta(doc("Why, for a person.")),
    retryable: z.boolean().optional().meta(doc("Whether what made it give up can pass.")),
    endpoint: z.string().max(280).optional().meta(doc("Where its agent takes the source's agent: host:port.")),
  })
  .meta(doc("What the agent of the target node says. Written by it."));

const claim = (description: string) =>
  z
    .object({
      name: z.string().meta(doc("The pod.")),
      uid: z.string().optional().meta(doc("Its uid, once it is bound.")),
    })
    .meta(doc(description));

export const migrationStatus = z
  .object({
    observedGeneration: z.int().optional().meta(doc("The generation that this status speaks of.")),
    phase: z
      .enum(["Pending", "Preparing", "CopyingDisk", "CopyingMemory", "SwitchingOver", "Succeeded", "Failed", "Cancelled"])
      .optional()
      .meta(doc("Where the move is.")),
    reason: z.string().optional().meta(doc("One CamelCase word for why it is in this phase.")),
    conditions: conditions.optional(),
    instanceUid: z.string().optional().meta(doc("The instance's uid.")),
    sourceNode: z.string().optional().meta(doc("The node that it leaves.")),
    targetNode: z.string().optional().meta(doc("The node that it goes to.")),
    sourceClaim: claim("The claim pod that it leaves.").optional(),
    targetClaim: claim("The claim pod that it goes to.").optional(),
    disks: z
      .array(disk)
      .max(16)
      .optional()
      .meta(mapList("Its disks, and where they go.", ["name"])),
    policy: resolvedPolicy.optional(),
    runtime: z
      .object({
        from: runtime("What it runs in before."),
        to: runtime("What it is to run in."),
      })
      .optional()
      .meta(doc("With mode: InPlace: the runtimes between which it goes.")),
    guestRestarts: z
      .int()
      .optional()
      .meta(
        doc(
          "With mode: InPlace: how often the guest had been started again by itself when it began. More at the end: it did not live.",
        ),
      ),
    claimGrowth: z
      .object({
        attempt: z.int().meta(doc("The attempt that found no room.")),
        fromBytes: z.int().meta(doc("The limit before.")),
        toBytes: z.int().meta(doc("The limit that is asked for.")),
        refused: z.string().optional().meta(doc("Why the claim was not given it.")),
      })
      .optional()
      .meta(
        doc(
          "With mode: InPlace: how the claim's memory limit is raised, where it has no room for a second QEMU for some seconds.",
        ),
      ),
    handover: handover.optional(),
    source: migrationSource.optional(),
    target: migrationTarget.optional(),
    retries: z.int().optional().meta(doc("Attempts after the first.")),
    startedAt: z
      .string()
      .optional()
      .meta({ ...doc("When it got its turn."), format: "date-time" }),
    endedAt: z
      .string()
      .optional()
      .meta({ ...doc("When it ended."), format: "date-time" }),
  })
  .meta(doc("What is known of it. Written by Drover."));

export type MigrationSpec = z.infer<typeof migrationSpec>;
export type MigrationStatus = z.infer<typeof migrationStatus>;
export type MigrationSource = z.infer<typeof migrationSource>;
export type MigrationTarget = z.infer<typeof migrationTarget>;
export type MigrationPolicy = z.infer<typeof resolvedPolicy>;
export type MigrationDisk = z.infer<typeof disk>;
/** From and to which runtime an InPlace migration goes. */
export type RuntimeChange = NonNullable<MigrationStatus["runtime"]>;
export type Handover = z.infer<typeof handover>;
export type Migration = Resource<"Migration", MigrationSpec, MigrationStatus>;

export const migrationKind: KindDefinition = {
  kind: "Migration",
  plural: "migrations",
  singular: "migration",
  shortNames: ["dmig"],
  scope: "Namespaced",
  description: "Moves an instance to another node, while it runs; or replaces the QEMU under it.",
  spec: migrationSpec,
  status: migrationStatus,
  // The name is a label's value on the claim that it makes.
  rules: nameRules("a migration's", 63),
  selectableFields: [".spec.instance", ".status.sourceNode", ".status.targetNode"],
  columns: [
    { name: "Instance", type: "string", jsonPath: ".spec.instance" },
    { name: "From", type: "string", jsonPath: ".status.sourceNode" },
    { name: "To", type: "string", jsonPath: ".status.targetNode" },
    { name: "Phase", type: "string", jsonPath: ".status.phase" },
    { name: "Progress", type: "string", jsonPath: ".status.source.progress" },
    { name: "Pause", type: "string", jsonPath: ".status.source.pause" },
    { name: "Age", type: "date", jsonPath: ".metadata.creationTimestamp" },
    { name: "Memory", type: "string", jsonPath: ".status.source.memory", priority: 1 },
    { name: "Disk", type: "string", jsonPath: ".status.source.disk", priority: 1 },
    { name: "Rate", type: "string", jsonPath: ".status.source.rate", priority: 1 },
    { name: "Mode", type: "string", jsonPath: ".spec.mode", priority: 1 },
    { name: "Reason", type: "string", jsonPath: ".status.reason", priority: 1 },
  ],
};
