import { describe, expect, it } from "vitest";
import { claimName } from "../../crds/names.ts";
import { claimPod, type ClaimSettings } from "./claim.ts";
import { UID, instanceFixture } from "./fixtures.ts";

const settings: ClaimSettings = {
  holderImage: "drover/holder:1",
  holderPullPolicy: "IfNotPresent",
  cpuOvercommit: 4,
  priorityClassName: "drover-claim",
};

describe("claimPod", () => {
  it("is a restricted pod that reserves what the instance needs, and nothing more", () => {
    expect(claimPod(instanceFixture(), { serial: 1, avoidNodes: [] }, settings)).toEqual({
      apiVersion: "v1",
      kind: "Pod",
      metadata: {
        name: claimName("web", UID, 1),
        namespace: "team-a",
        labels: { "drover.dev/claim": "web", "app.kubernetes.io/managed-by": "drover", "sidecar.istio.io/inject": "false" },
        annotations: {
          "sidecar.istio.io/inject": "false",
          "linkerd.io/inject": "disabled",
          "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
          "karpenter.sh/do-not-disrupt": "true",
        },
        ownerReferences: [{ apiVersion: "drover.dev/v1alpha1", kind: "Instance", name: "web", uid: UID, controller: true }],
      },
      spec: {
        automountServiceAccountToken: false,
        enableServiceLinks: false,
        restartPolicy: "Always",
        terminationGracePeriodSeconds: 3600,
        priorityClassName: "drover-claim",
        dnsPolicy: "Default",
        tolerations: [{ operator: "Exists", effect: "NoExecute" }],
        securityContext: {
          runAsNonRoot: true,
          runAsUser: 65534,
          runAsGroup: 65534,
          seccompProfile: { type: "RuntimeDefault" },
        },
        containers: [
          {
            name: "holder",
            image: "drover/holder:1",
            imagePullPolicy: "IfNotPresent",
            resources: {
              requests: { cpu: "250m", memory: String(449 * 1024 ** 2), "drover.dev/pool.local": "1" },
              limits: { memory: String(449 * 1024 ** 2), "drover.dev/pool.local": "1" },
            },
            securityContext: {
              allowPrivilegeEscalation: false,
              readOnlyRootFilesystem: true,
              capabilities: { drop: ["ALL"] },
            },
          },
        ],
      },
    });
  });

  it("goes back to the node that holds the disk, and does not ask for the disk's room again", () => {
    const pod = claimPod(instanceFixture(), { serial: 2, nodeName: "n1", avoidNodes: ["n2"] }, settings);
    expect(pod.metadata.name).not.toBe(claimName("web", UID, 1));
    expect(pod.spec.affinity).toEqual({
      nodeAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: {
          nodeSelectorTerms: [{ matchFields: [{ key: "metadata.name", operator: "In", values: ["n1"] }] }],
        },
      },
    });
    expect(pod.spec.containers[0]?.resources.requests).toEqual({ cpu: "250m", memory: String(449 * 1024 ** 2) });
  });

  it("asks for the room of all its disks, each in its pool, and for what they cost QEMU", () => {
    const disks = [
      { name: "data", pool: "local", size: "1536Mi" },
      { name: "log", pool: "big", size: "4Gi" },
    ];
    const pod = claimPod(instanceFixture({ spec: { disks } }), { serial: 1, avoidNodes: [] }, settings);
    expect(pod.spec.containers[0]?.resources.requests).toEqual({
      cpu: "250m",
      memory: String((449 + 16) * 1024 ** 2),
      "drover.dev/pool.local": "3",
      "drover.dev/pool.big": "4",
    });
  });

  it("would rather not land on a node that is not ready", () => {
    const pod = claimPod(instanceFixture(), { serial: 1, avoidNodes: ["n2", "n3"] }, settings);
    expect(pod.spec.affinity).toEqual({
      nodeAffinity: {
        preferredDuringSchedulingIgnoredDuringExecution: [
          {
            weight: 100,
            preference: {
              matchFields: [
                { key: "metadata.name", operator: "NotIn", values: ["n2"] },
                { key: "metadata.name", operator: "NotIn", values: ["n3"] },
              ],
            },
          },
        ],
      },
    });
  });

  it("goes to any node that has the pools which nodes share", () => {
    const place = { serial: 2, poolLabels: [["disk", "nfs"]] as [string, string][], avoidNodes: [] };
    const term = { matchExpressions: [{ key: "disk", operator: "In", values: ["nfs"] }] };
    const required = { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [term] } };
    expect(claimPod(instanceFixture(), place, settings).spec.affinity).toEqual({ nodeAffinity: required });
    const { nodeAffinity } = claimPod(instanceFixture(), { ...place, avoidNodes: ["n2"] }, settings).spec.affinity as {
      nodeAffinity: object;
    };
    expect(nodeAffinity).toMatchObject({ ...required, preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 100 }] });
    expect(claimPod(instanceFixture(), { serial: 2, poolLabels: [], avoidNodes: [] }, settings).spec.affinity).toBeUndefined();
  });

  it("takes over where the user wants it", () => {
    const placement = {
      nodeSelector: { disk: "nvme" },
      tolerations: [{ key: "vm", operator: "Exists" as const }],
      priorityClassName: "gold",
    };
    const { spec } = claimPod(instanceFixture({ spec: { placement } }), { serial: 1, avoidNodes: [] }, settings);
    expect(spec.nodeSelector).toEqual({ disk: "nvme" });
    expect(spec.tolerations).toEqual([
      { operator: "Exists", effect: "NoExecute" },
      { key: "vm", operator: "Exists" },
    ]);
    expect(spec.priorityClassName).toBe("gold");
  });

  it.each([
    ["a small one", 1, 1, "256Mi", 449],
    ["no NIC", 1, 0, "256Mi", 449],
    ["more vCPUs and NICs", 4, 2, "8Gi", 8192 + 96 + 32 + 64 + 32 + 8 * 4],
  ])("reserves memory for %s", (_, cpu, nicCount, memory, mib) => {
    const nics = Array.from({ length: nicCount }, (__, n) => ({ name: `eth${n}`, network: "blue" }));
    const pod = claimPod(instanceFixture({ spec: { cpu, memory, nics } }), { serial: 1, avoidNodes: [] }, settings);
    expect(pod.spec.containers[0]?.resources.limits.memory).toBe(String(mib * 1024 ** 2));
  });
});
