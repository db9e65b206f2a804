/** The claim: a tiny pod by which kube-scheduler finds an instance's node, and in whose cgroup its processes are accounted. */
import { disksOf } from "../../crds/disks.ts";
import { CLAIM_LABEL, claimName, MIGRATION_LABEL, poolResource } from "../../crds/names.ts";
import type { Instance } from "../../crds/instance.ts";
import type { MigrationDisk } from "../../crds/migration.ts";
import { gibRoundedUp, MIB, parseBytes } from "../../crds/quantity.ts";
import { asksForDisk } from "../../crds/disk-room.ts";
import { HOLDER } from "./facts.ts";
import { overheadBytes } from "./overhead.ts";

/** What the chart decides about claims. */
export interface ClaimSettings {
  holderImage: string;
  holderPullPolicy: "Always" | "IfNotPresent" | "Never";
  /** vCPUs per CPU that a claim requests. */
  cpuOvercommit: number;
  /** Used where the instance names none. */
  priorityClassName: string;
}

export interface ClaimPlace {
  serial: number;
  /** The node that holds the instance's disks, once they exist; none where all its nodes share them. */
  nodeName?: string | undefined;
  /** Labels that a node must have to have the disks. */
  poolLabels?: readonly [string, string][];
  /** Nodes that are better not taken: their agent says they are not ready. */
  avoidNodes: readonly string[];
}

/** Where a second claim shall be, to which the instance moves. */
export interface TargetPlace {
  name: string;
  /** The Migration's name. */
  migration: string;
  /** The node that it leaves. */
  sourceNode: string;
  /** The only node that will do. */
  nodeName?: string | undefined;
  /** Labels that the node must have, beside those of the instance's own placement. */
  nodeSelector?: Record<string, string> | undefined;
  /** Nodes that cannot take it, which kube-scheduler does not know of. */
  unsuitable: readonly string[];
  /** Labels that a node must have to have the disks that are not copied. */
  poolLabels?: readonly [string, string][];
  disks: readonly MigrationDisk[];
  /** Disks that are not copied, and yet will be counted to this claim: they stay on the node that it leaves and goes to. */
  staying?: readonly string[];
  /** No guest will run in it: it only holds the room of the disks that come. */
  idle?: boolean;
}

/**
 * Time that an instance has to shut down, or later to move, when its claim is deleted from outside. The holder ignores TERM and the
 * agent ends it as soon as nothing runs any more, so an ordinary deletion does not take this long.
 */
const GRACE_SECONDS = 3600;
/** What a claim takes in which nothing runs but its holder. */
const IDLE = { cpu: "10m", memory: String(32 * MIB) };
const NOBODY = 65534;

const byName = (operator: "In" | "NotIn", name: string) => ({ key: "metadata.name", operator, values: [name] });

const labelled = (labels: readonly [string, string][]) =>
  labels.map(([key, value]) => ({ key, operator: "In", values: [value] }));

function affinity({ nodeName, poolLabels = [], avoidNodes }: ClaimPlace) {
  if (nodeName !== undefined) {
    const terms = [{ matchFields: [byName("In", nodeName)] }];
    return { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: terms } } };
  }
  const required =
    poolLabels.length === 0
      ? {}
      : { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [{ matchExpressions: labelled(poolLabels) }] } };
  if (avoidNodes.length === 0) return poolLabels.length === 0 ? undefined : { nodeAffinity: required };
  // Preferred, not required: a pod's affinity is fixed, and a node that is not ready now may be the only one with room later.
  const preference = { matchFields: avoidNodes.map((name) => byName("NotIn", name)) };
  return { nodeAffinity: { ...required, preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 100, preference }] } };
}

/** A node by its name; the API server takes one name per requirement. */
function targetAffinity({ sourceNode, nodeName, nodeSelector, poolLabels = [], unsuitable }: TargetPlace) {
  const matchFields =
    nodeName === undefined
      ? [sourceNode, ...unsuitable.filter((name) => name !== sourceNode)].map((name) => byName("NotIn", name))
      : [byName("In", nodeName)];
  // Not as the pod's nodeSelector: the instance's own may ask for another value of the same label, and then no node will do.
  const matchExpressions = labelled([...Object.entries(nodeSelector ?? {}), ...poolLabels]);
  const term = { matchFields, ...(matchExpressions.length === 0 ? {} : { matchExpressions }) };
  return { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [term] } } };
}

/** The room of these disks, by the resource of their pool. */
function poolRequests(disks: readonly { pool: string; sizeBytes: number }[]): Record<string, string> {
  const gib = new Map<string, number>();
  for (const { pool, sizeBytes } of disks) gib.set(pool, (gib.get(pool) ?? 0) + gibRoundedUp(sizeBytes));
  return Object.fromEntries([...gib].map(([pool, count]) => [poolResource(pool), String(count)]));
}

function requests(instance: Instance, { room, idle }: Particulars, settings: ClaimSettings) {
  if (idle === true) return { ...IDLE, ...room };
  const { cpu, memory, nics } = instance.spec;
  const ramBytes = parseBytes(memory);
  const disks = disksOf(instance).length;
  const overhead = overheadBytes({ ramBytes, cpus: cpu, disks, nics: nics?.length ?? 0 });
  return { cpu: `${Math.ceil((cpu * 1000) / settings.cpuOvercommit)}m`, memory: String(ramBytes + overhead), ...room };
}

/** The claim pod of an instance. Pure; the same for the same serial, but for `avoidNodes`. */
export function claimPod(instance: Instance, place: ClaimPlace, settings: ClaimSettings) {
  const { name, uid } = instance.metadata;
  const room = asksForDisk(place.serial) ? poolRequests(disksOf(instance)) : {};
  return podOf(instance, { name: claimName(name, uid, place.serial), affinity: affinity(place), room }, settings);
}

/** The claim pod that an instance moves to. Pure. It asks for the room of the disks that will be copied, and of those that will be its own. */
export function targetClaimPod(instance: Instance, place: TargetPlace, settings: ClaimSettings) {
  const counted = place.disks.filter(({ name, copy }) => copy || place.staying?.includes(name) === true);
  const labels = { [MIGRATION_LABEL]: place.migration };
  const room = poolRequests(counted.map(({ targetPool, sizeBytes }) => ({ pool: targetPool, sizeBytes })));
  return podOf(instance, { name: place.name, affinity: targetAffinity(place), room, labels, idle: place.idle }, settings);
}

interface Particulars {
  name: string;
  affinity: Record<string, unknown> | undefined;
  room: Record<string, string>;
  labels?: Record<string, string>;
  idle?: boolean | undefined;
}

/** It has no cpu limit: vCPUs share a limit with QEMU's own threads, which it would throttle. */
function podOf(instance: Instance, particulars: Particulars, settings: ClaimSettings) {
  const { name, namespace, uid } = instance.metadata;
  const { cpu, ...limited } = requests(instance, particulars, settings);
  const placement = instance.spec.placement;
  return {
    apiVersion: "v1" as const,
    kind: "Pod" as const,
    metadata: {
      name: particulars.name,
      namespace,
      labels: {
        ...particulars.labels,
        [CLAIM_LABEL]: name,
        "app.kubernetes.io/managed-by": "drover",
        "sidecar.istio.io/inject": "false",
      },
      annotations: {
        "sidecar.istio.io/inject": "false",
        "linkerd.io/inject": "disabled",
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
      },
      // No blockOwnerDeletion: a foreground deletion would delete the claim before its guest has shut down.
      ownerReferences: [{ apiVersion: instance.apiVersion, kind: instance.kind, name, uid, controller: true }],
    },
    spec: {
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      restartPolicy: "Always" as const,
      terminationGracePeriodSeconds: GRACE_SECONDS,
      priorityClassName: placement?.priorityClassName ?? settings.priorityClassName,
      // The holder resolves nothing; the default would ask for a cluster DNS that need not exist.
      dnsPolicy: "Default" as const,
      nodeSelector: placement?.nodeSelector,
      affinity: particulars.affinity,
      // NoExecute only: without an effect it would be scheduled onto cordoned nodes.
      tolerations: [{ operator: "Exists", effect: "NoExecute" }, ...(placement?.tolerations ?? [])],
      securityContext: {
        runAsNonRoot: true,
        runAsUser: NOBODY,
        runAsGroup: NOBODY,
        seccompProfile: { type: "RuntimeDefault" },
      },
      containers: [
        {
          name: HOLDER,
          image: settings.holderImage,
          imagePullPolicy: settings.holderPullPolicy,
          resources: { requests: { cpu, ...limited }, limits: limited },
          securityContext: {
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ["ALL"] },
          },
        },
      ],
    },
  };
}
