/** Whether an eviction of a pod may pass. Pure. */
import type { Instance } from "../../crds/instance.ts";
import type { Migration } from "../../crds/migration.ts";
import type { Pod } from "../../kube/index.ts";
import { saidOver, type NodeSeen } from "../instance/facts.ts";
import { isOver } from "./moves.ts";
import { askedNow, askedOf } from "./notes.ts";
import { planDrain } from "./plan.ts";

/** A claim pod that is to be evicted, and what is known around it. */
export interface EvictionFacts {
  pod: Pod;
  /** The Instance that owns the claim; undefined: there is none of that uid. */
  instance: Instance | undefined;
  /** All Migrations of the instance. */
  moves: readonly Migration[];
  /** The claim's node. */
  node: NodeSeen;
  /** The grace period that the eviction asks for, if it names one. */
  graceSeconds: number | undefined;
  now: number;
  deadlineMs: number;
}

export type Verdict =
  | { allow: true }
  /** `note`: somebody has to make the claim free to go. */
  | { allow: false; message: string; note: boolean };

/** What an instance has to do with one of its claims. */
export type Role =
  /** Nothing of the instance runs in it, and no agent was told to start anything there. */
  | { role: "free" }
  /** The instance lives, or is about to live, in it. */
  | { role: "home"; instance: Instance }
  /** A move brings the instance here. */
  | { role: "target"; move: Migration }
  /** The instance has left, or leaves, and something of it may still be here. */
  | { role: "left" };

const ended = ({ status }: Pod): boolean => status?.phase === "Failed" || status?.phase === "Succeeded";

/** The role of a claim. Unknown means that something may run in it. Pure. */
export function roleOf({ pod, instance, moves }: Pick<EvictionFacts, "pod" | "instance" | "moves">): Role {
  const { uid } = pod.metadata;
  if (uid === undefined || pod.spec.nodeName === undefined || ended(pod)) return { role: "free" };
  // Its release is under way, and it knows better what may still run.
  if (instance === undefined) return { role: "left" };
  if (instance.status?.claim?.uid === uid) {
    const off = instance.spec.power === "Stopped" && saidOver(uid, instance.status.guest);
    return off ? { role: "free" } : { role: "home", instance };
  }
  const active = moves.filter((move) => !isOver(move));
  const arriving = active.find(({ status }) => status?.targetClaim?.uid === uid);
  if (arriving !== undefined) return { role: "target", move: arriving };
  if (active.some(({ status }) => status?.sourceClaim?.uid === uid)) return { role: "left" };
  const guest = instance.status?.guest;
  return guest?.claimUid === uid && !saidOver(uid, guest) ? { role: "left" } : { role: "free" };
}

function leftWords(instance: Instance | undefined, pod: Pod): string {
  if (instance === undefined) return "is gone from the API, and is being released";
  const node = instance.status?.claim?.node;
  return node === undefined || node === pod.spec.nodeName ? "has another claim now" : `has moved to node ${node}`;
}

const refuse = (message: string, note = false): Verdict => ({ allow: false, message, note });

/**
 * Whether the eviction may pass, and why not, in a sentence. Eviction of what may go is allowed; the PodDisruptionBudget still refuses
 * what runs. A claim that is being deleted may be asked again, but not to end sooner: its guest is being shut down.
 */
export function judgeEviction(facts: EvictionFacts): Verdict {
  const { pod, instance, graceSeconds, now } = facts;
  const seen = roleOf(facts);
  if (seen.role === "free") return { allow: true };
  const name = instance?.metadata.name ?? pod.metadata.ownerReferences?.find(({ kind }) => kind === "Instance")?.name;
  const who = `instance ${name ?? "(unknown)"}`;
  const deleting = pod.metadata.deletionTimestamp !== undefined;
  if (deleting) {
    if (graceSeconds === undefined) return { allow: true };
    return refuse(`${who} is being shut down, and its claim ends when that is done; evict it without a grace period`);
  }
  switch (seen.role) {
    case "left":
      return refuse(`${who} ${leftWords(instance, pod)}; this claim ends when nothing of it is left here`);
    case "target":
      return refuse(`${who} is just being moved here by Migration ${seen.move.metadata.name}; it is moved on after that`, true);
    case "home":
    default: {
      const asked = askedNow(askedOf(pod), now);
      const claim = { uid: pod.metadata.uid ?? "", node: pod.spec.nodeName, deleting };
      const plan = planDrain({ ...facts, instance: seen.instance, claim, asked });
      const far = plan?.progress === undefined ? "" : ` (${plan.progress})`;
      return refuse(`${who} ${plan?.message ?? "is looked at"}${far}`, true);
    }
  }
}
