/** The claim pods of this node: what they mean to guests, and their end. */
import { CLAIM_LABEL } from "../../crds/names.ts";
import { keyText, resources, type Informer, type KubeClient, type Logger, type ObjectKey, type Pod } from "../../kube/index.ts";
import type { ClaimCgroups } from "../instance/qemu/cgroup.ts";
import { holderProcesses, killHolder } from "./holder.ts";
import { claimState, type ClaimState } from "./state.ts";

/** Index of the pods' informer: by `namespace/instance`. */
export const byInstance = (pod: Pod): string[] => {
  const name = pod.metadata.labels?.[CLAIM_LABEL];
  return name === undefined ? [] : [keyText({ ...namespaceOf(pod), name })];
};

/** Keeps of a pod what is read here. */
export const slim = (pod: Pod): Pod => ({
  apiVersion: pod.apiVersion,
  kind: pod.kind,
  metadata: pod.metadata,
  spec: { containers: [], ...(pod.spec.nodeName === undefined ? {} : { nodeName: pod.spec.nodeName }) },
  ...(pod.status === undefined
    ? {}
    : {
        status: {
          ...(pod.status.phase === undefined ? {} : { phase: pod.status.phase }),
          ...(pod.status.reason === undefined ? {} : { reason: pod.status.reason }),
          ...(pod.status.message === undefined ? {} : { message: pod.status.message }),
          ...(pod.status.containerStatuses === undefined ? {} : { containerStatuses: pod.status.containerStatuses }),
        },
      }),
});

const namespaceOf = (pod: Pod): { namespace?: string } =>
  pod.metadata.namespace === undefined ? {} : { namespace: pod.metadata.namespace };

export class Claims {
  readonly #client: Pick<KubeClient, "get">;
  readonly #pods: Pick<Informer<Pod>, "byIndex" | "hasSynced">;
  readonly #cgroups: Pick<ClaimCgroups, "find" | "processes">;
  readonly #cgroupRoot: string;
  readonly #log: Logger;

  constructor(parts: {
    client: Pick<KubeClient, "get">;
    /** Informer of this node's claim pods, with the index `instance`. */
    pods: Pick<Informer<Pod>, "byIndex" | "hasSynced">;
    cgroups: Pick<ClaimCgroups, "find" | "processes">;
    /** The node's cgroups as this process sees them. */
    cgroupRoot: string;
    log: Logger;
  }) {
    this.#client = parts.client;
    this.#pods = parts.pods;
    this.#cgroups = parts.cgroups;
    this.#cgroupRoot = parts.cgroupRoot;
    this.#log = parts.log;
  }

  of(instance: ObjectKey): Pod[] {
    return this.#pods.byIndex("instance", keyText(instance));
  }

  /**
   * The state of a claim. One that the informer does not have is asked for at the API server itself, for the informers of
   * instances and pods do not walk in step; when that does not answer, nothing is known.
   */
  async state(instance: ObjectKey, claim: { uid: string; name: string | undefined }): Promise<ClaimState> {
    const known = this.of(instance).find((pod) => pod.metadata.uid === claim.uid);
    if (known !== undefined) return claimState(known, claim.uid);
    if (!this.#pods.hasSynced || claim.name === undefined) return { state: "unknown" };
    try {
      const key = { ...(instance.namespace === undefined ? {} : { namespace: instance.namespace }), name: claim.name };
      return claimState(await this.#client.get(resources.pods, key), claim.uid);
    } catch (error) {
      this.#log.warn({ claim: claim.name, err: error }, "the API server cannot be asked about a claim; nothing is done about it");
      return { state: "unknown" };
    }
  }

  /**
   * Ends the holders of this instance's claims that are being deleted and in which no guest is left, so that the pods go at
   * once. Gives whether a pod is left to look at again. Repeatable.
   */
  async endHolders(instance: ObjectKey): Promise<boolean> {
    let left = false;
    for (const pod of this.of(instance)) {
      const { uid, deletionTimestamp } = pod.metadata;
      if (uid === undefined || deletionTimestamp === undefined) continue;
      left = (await this.#endHolder(pod, uid)) || left;
    }
    return left;
  }

  async #endHolder(pod: Pod, uid: string): Promise<boolean> {
    const cgroup = await this.#cgroups.find(uid);
    if (cgroup === undefined) return false;
    if ((await this.#cgroups.processes(uid)).length > 0) return true;
    const holders = await holderProcesses(this.#cgroupRoot, cgroup, pod);
    for (const holder of holders) {
      if (await killHolder(holder)) {
        this.#log.info(
          { claim: keyText({ ...namespaceOf(pod), name: pod.metadata.name }), pid: holder.pid },
          "ended a claim's holder",
        );
      }
    }
    // Until the pod is gone: a kubelet that had not heard of the deletion may have started the holder once more.
    return true;
  }
}
