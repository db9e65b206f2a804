/** Where an instance is in its life, in one word, with the reason and a sentence. */
import type { GuestStatus, Instance, InstanceStatus, NicStatus } from "../../crds/instance.ts";
import { isMoving, type ActiveMove, type Past } from "../migration/active.ts";
import type { DrainPlan } from "../drain/plan.ts";
import type { ClaimPlan } from "./claim-plan.ts";
import type { RuntimeFacts } from "./runtime-current.ts";
import { saidOver, type ClaimSeen, type NodeSeen, type Problem } from "./facts.ts";

export type Phase = NonNullable<InstanceStatus["phase"]>;

/** What each phase of a reconcile found to be in the way; a user or the cluster's administrator can mend it. */
export interface Problems {
  /** No claim can be made, or none is placed. */
  claim?: Problem;
  pool?: Problem;
  network?: Problem;
  /** Deletion waits for this. */
  release?: Problem;
}

/** All that the status is computed from. */
export interface StatusFacts {
  instance: Instance;
  plan: ClaimPlan;
  /** The instance's claim pod. */
  claim?: ClaimSeen;
  /** The node that it was bound to, now or before. */
  nodeName?: string;
  node: NodeSeen;
  nics: NicStatus[];
  problems: Problems;
  /** The Migration that has its turn. */
  move?: ActiveMove | undefined;
  /** The runtime that instances get which start on its node now. */
  runtime?: RuntimeFacts["current"];
  /** Moves that have ended. */
  past?: Past;
  /** What follows from its having been asked to leave its node. */
  drain?: DrainPlan | undefined;
  now: Date;
}

export interface PhaseSeen extends Problem {
  phase: Phase;
}

/**
 * What the agent says of the guest in the present claim; old news of an earlier claim is not given. A guest that has just arrived
 * by a move runs, though the agent there has not said so yet.
 */
export function currentGuest({ instance, plan, move }: Pick<StatusFacts, "instance" | "plan" | "move">): GuestStatus | undefined {
  const guest = instance.status?.guest;
  if (guest === undefined) return undefined;
  const justLeft = move?.state === "Done" && guest.state === "Running" && guest.claimUid === move.sourceClaim?.uid;
  return guest.claimUid === plan.record?.uid || justLeft ? guest : undefined;
}

/** Why the node cannot be asked about what it still holds of the instance; undefined when it can, or holds nothing. */
function unanswered({ instance, plan, node, nodeName }: StatusFacts): Problem | undefined {
  if (node.state === "Answering") return undefined;
  const guest = instance.status?.guest;
  const claimUid = plan.record?.uid;
  const isHeld =
    instance.metadata.deletionTimestamp === undefined
      ? claimUid !== undefined && !saidOver(claimUid, guest)
      : nodeName !== undefined && guest?.state !== "Released" && node.state !== "Gone";
  if (!isHeld) return undefined;
  if (node.state !== "Gone") return { reason: node.reason, message: node.message };
  return {
    reason: "NodeGone",
    message: `node ${nodeName ?? ""} is no longer in the cluster, and the instance's disks with it; bring the node back, or delete the instance`,
  };
}

function waiting({ plan, claim, problems }: StatusFacts): PhaseSeen {
  const blocked = problems.pool ?? problems.network ?? problems.claim;
  if (claim === undefined && blocked !== undefined) return { phase: "Pending", ...blocked };
  if (plan.step.do === "wait") return { phase: "Pending", reason: plan.step.reason, message: plan.step.message };
  if (claim?.unscheduled !== undefined) return { phase: "Pending", ...claim.unscheduled };
  return { phase: "Pending", reason: "Scheduling", message: "kube-scheduler looks for a node" };
}

const GUEST_PHASES: Record<GuestStatus["state"], Phase> = {
  Preparing: "Starting",
  Starting: "Starting",
  Running: "Running",
  Stopping: "Stopping",
  Stopped: "Stopped",
  Failed: "Error",
  Released: "Starting",
};

const GUEST_WORDS: Record<GuestStatus["state"], Problem> = {
  Preparing: { reason: "Preparing", message: "its image and disks are made ready" },
  Starting: { reason: "Starting", message: "its guest is being started" },
  Running: { reason: "Running", message: "its guest runs" },
  Stopping: { reason: "ShuttingDown", message: "its guest is shut down" },
  Stopped: { reason: "GuestStopped", message: "its guest has ended by itself" },
  Failed: { reason: "GuestFailed", message: "its guest has failed" },
  Released: { reason: "WaitingForAgent", message: "its agent has not yet taken it up" },
};

/**
 * Until the agent at the target speaks of it, it is not there yet. A guest whose QEMU is replaced in place goes nowhere: it runs, and
 * whoever waits for Running, or is alarmed by Migrating, need not hear of some milliseconds.
 */
const isUnderWay = ({ move, plan }: StatusFacts, guest: GuestStatus): boolean =>
  move?.inPlace !== true && (isMoving(move) || (move?.state === "Done" && guest.claimUid !== plan.record?.uid));

function migrating({ move }: StatusFacts): PhaseSeen {
  const [from, to, name] = [move?.sourceNode ?? "", move?.targetNode ?? "", move?.name ?? ""];
  const way =
    from === to ? `its root disk is being moved to another pool of node ${to}` : `is being moved from node ${from} to node ${to}`;
  const message = `its guest runs, and ${way} by the Migration ${name}`;
  return { phase: "Migrating", reason: "Migrating", message };
}

function placed(facts: StatusFacts): PhaseSeen {
  if (facts.move?.undecided !== undefined) return { phase: "Unknown", ...facts.move.undecided };
  const { step } = facts.plan;
  if (step.do === "wait") return { phase: "Stopping", reason: step.reason, message: step.message };
  if (step.do === "delete")
    return { phase: "Stopping", reason: "ClaimEnding", message: `its claim ${step.claim.name} is replaced` };
  const guest = currentGuest(facts);
  if (guest === undefined) {
    const message = `the agent of node ${facts.nodeName ?? "(unknown)"} has not yet taken it up`;
    return { phase: "Starting", reason: "WaitingForAgent", message };
  }
  const words = GUEST_WORDS[guest.state];
  if (guest.state === "Running" && isUnderWay(facts, guest)) return migrating(facts);
  return {
    phase: GUEST_PHASES[guest.state],
    reason: guest.reason ?? words.reason,
    message: guest.message ?? words.message,
  };
}

/** The phase of an instance. Pure. */
export function computePhase(facts: StatusFacts): PhaseSeen {
  const { instance, plan, problems, nodeName } = facts;
  const silent = unanswered(facts);
  if (silent !== undefined) return { phase: "Unknown", ...(problems.release ?? silent) };
  if (instance.metadata.deletionTimestamp !== undefined) {
    return { phase: "Stopping", ...(problems.release ?? { reason: "Deleting", message: "it is being deleted" }) };
  }
  if (instance.spec.power === "Stopped") {
    if (plan.step.do === "nothing") {
      const disks = nodeName === undefined ? "" : `; its disks are on node ${nodeName}`;
      return { phase: "Stopped", reason: "PoweredOff", message: `it is stopped, as spec.power asks${disks}` };
    }
    const words = plan.step.do === "wait" ? plan.step : { reason: "ClaimEnding", message: "its claim is ending" };
    return { phase: "Stopping", reason: words.reason, message: words.message };
  }
  return plan.record?.uid === undefined ? waiting(facts) : placed(facts);
}
