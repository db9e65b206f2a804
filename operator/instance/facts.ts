/** What the operator knows of one instance's surroundings, reduced to what its decisions need. */
import type { GuestStatus, InstanceStatus } from "../../crds/instance.ts";
import { MIGRATION_LABEL } from "../../crds/names.ts";
import { parseBytes } from "../../crds/quantity.ts";
import type { Pod } from "../../kube/index.ts";

export type Power = "Running" | "Stopped";
export type ClaimRecord = NonNullable<InstanceStatus["claim"]>;

/** Why something is not as it should be: one CamelCase word, and a sentence that says what to change. */
export interface Problem {
  reason: string;
  message: string;
}

/** The one container of a claim. */
export const HOLDER = "holder";

/** A claim pod as the API server shows it. */
export interface ClaimSeen {
  name: string;
  uid: string;
  /** The node it is bound to. */
  node?: string;
  /** The Migration that made it for its target, until the guest lives in it. */
  migration?: string;
  createdAt: number;
  deleting: boolean;
  holderRunning: boolean;
  /** Why the scheduler has found no node for it, in its own words. */
  unscheduled?: Problem;
  /** It is over (evicted, or refused by the kubelet): nothing can run in it any more. */
  ended?: Problem;
  memory?: ClaimMemory | undefined;
}

/** The memory limit of a claim, which can be changed while it runs. */
export interface ClaimMemory {
  limitBytes: number;
  /** What the kubelet says that it has given; undefined for one that does not know resizes. */
  givenBytes?: number | undefined;
  /** Why the kubelet does not give it. */
  refused?: Problem;
}

/** Whether a node can be asked. Gone: its Node object was deleted; Fenced: proven to run nothing any more. */
export type NodeSeen =
  | { state: "Answering" }
  | ({ state: "Silent" } & Problem)
  | ({ state: "Fenced" } & Problem)
  | { state: "Gone" };

/** Why the scheduler has not placed a pod; undefined when it has, or has not tried yet. */
function unscheduled(pod: Pod): Problem | undefined {
  const condition = pod.status?.conditions?.find(({ type }) => type === "PodScheduled");
  if (condition?.status !== "False") return undefined;
  return { reason: condition.reason ?? "Unschedulable", message: condition.message ?? "kube-scheduler gives no reason" };
}

function ended({ status }: Pod): Problem | undefined {
  if (status?.phase !== "Failed" && status?.phase !== "Succeeded") return undefined;
  return { reason: status.reason ?? status.phase, message: status.message ?? `the pod is ${status.phase}` };
}

/** Undefined for what is no quantity of bytes as far as we write them. */
function bytesOf(quantity: string | undefined): number | undefined {
  try {
    return quantity === undefined ? undefined : parseBytes(quantity);
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

function memory({ metadata, spec, status }: Pod): ClaimMemory | undefined {
  const limitBytes = bytesOf(spec.containers.find(({ name }) => name === HOLDER)?.resources?.limits?.["memory"]);
  if (limitBytes === undefined) return undefined;
  const given = status?.containerStatuses?.find(({ name }) => name === HOLDER)?.resources?.limits?.["memory"];
  const pending = status?.conditions?.find(({ type }) => type === "PodResizePending");
  // what it said of an earlier size may stand there for a moment yet
  const isOfNow = (pending?.observedGeneration ?? Number.POSITIVE_INFINITY) >= (metadata.generation ?? 0);
  const refused = pending?.status === "True" && isOfNow && { reason: pending.reason ?? "", message: pending.message ?? "" };
  return { limitBytes, givenBytes: bytesOf(given), ...(refused ? { refused } : {}) };
}

/** What matters of a claim pod. Pure. */
export function claimSeen(pod: Pod): ClaimSeen {
  const why = unscheduled(pod);
  const over = ended(pod);
  return {
    name: pod.metadata.name,
    uid: pod.metadata.uid ?? "",
    node: pod.spec.nodeName,
    migration: pod.metadata.labels?.[MIGRATION_LABEL],
    createdAt: Date.parse(pod.metadata.creationTimestamp ?? ""),
    deleting: pod.metadata.deletionTimestamp !== undefined,
    holderRunning: pod.status?.phase === "Running" && (pod.status.containerStatuses ?? []).every(({ ready }) => ready),
    unscheduled: why,
    ended: over,
    memory: memory(pod),
  };
}

/** Whether its agent says that nothing of the instance runs in this claim, nor will. */
export const saidOver = (claimUid: string, guest: GuestStatus | undefined): boolean =>
  guest?.claimUid === claimUid && (guest.state === "Stopped" || guest.state === "Failed" || guest.state === "Released");

/** Proof that nothing of the instance runs in this claim, nor will: its agent's word, or a fenced node. */
export const provenOver = (claimUid: string, guest: GuestStatus | undefined, node: NodeSeen): boolean =>
  node.state === "Fenced" || saidOver(claimUid, guest);
