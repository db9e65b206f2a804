/** The claim: a tiny pod by which kube-scheduler finds an instance's node, and in whose cgroup its processes are accounted. */
import { CLAIM_LABEL, claimName, poolResource } from "../../crds/names.ts";
import type { Instance } from "../../crds/instance.ts";
import { gibRoundedUp, parseBytes } from "../../crds/quantity.ts";
import { asksForDisk } from "../../crds/disk-room.ts";
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
  /** The node that holds the instance's disks, once they exist. */
  nodeName?: string;
  /** Nodes that are better not taken: their agent says they are not ready. */
  avoidNodes: readonly string[];
}

/**
 * Time that an instance has to shut down, or later to move, when its claim is deleted from outside. The holder ignores TERM and the
 * agent ends it as soon as nothing runs any more, so an ordinary deletion does not take this long.
 */
const GRACE_SECONDS = 3600;
const NOBODY = 65534;

const byName = (operator: "In" | "NotIn", name: string) => ({ key: "metadata.name", operator, values: [name] });

function affinity({ nodeName, avoidNodes }: ClaimPlace) {
  if (nodeName !== undefined) {
    const terms = [{ matchFields: [byName("In", nodeName)] }];
    return { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: terms } } };
  }
  if (avoidNodes.length === 0) return undefined;
  // Preferred, not required: a pod's affinity is fixed, and a node that is not ready now may be the only one with room later.
  const preference = { matchFields: avoidNodes.map((name) => byName("NotIn", name)) };
  return { nodeAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 100, preference }] } };
}

function requests(instance: Instance, place: ClaimPlace, settings: ClaimSettings) {
  const { cpu, memory, nics, rootDisk } = instance.spec;
  const ramBytes = parseBytes(memory);
  const overhead = overheadBytes({ ramBytes, cpus: cpu, disks: 1, nics: nics?.length ?? 0 });
  const pool =
    rootDisk.pool === undefined || !asksForDisk(place.serial)
      ? {}
      : { [poolResource(rootDisk.pool)]: String(gibRoundedUp(parseBytes(rootDisk.size))) };
  return {
    cpu: `${Math.ceil((cpu * 1000) / settings.cpuOvercommit)}m`,
    memory: String(ramBytes + overhead),
    ...pool,
  };
}

/**
 * The claim pod of an instance. Pure; the same for the same serial, but for `avoidNodes`.
 * It has no cpu limit: vCPUs share a limit with QEMU's own threads, which it would throttle.
 */
export function claimPod(instance: Instance, place: ClaimPlace, settings: ClaimSettings) {
  const { name, namespace, uid } = instance.metadata;
  const { cpu, ...limited } = requests(instance, place, settings);
  const placement = instance.spec.placement;
  const where = affinity(place);
  return {
    apiVersion: "v1" as const,
    kind: "Pod" as const,
    metadata: {
      name: claimName(name, uid, place.serial),
      namespace,
      labels: {
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
      affinity: where,
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
          name: "holder",
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
