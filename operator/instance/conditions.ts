/** The conditions of an instance, each a pure function of what is known. */
import type { Condition } from "../../crds/schema.ts";
import type { Problem } from "./facts.ts";
import { drainingVerdict } from "../drain/condition.ts";
import { findCondition } from "../../kube/index.ts";
import { migrationProblem } from "./migratable.ts";
import { runtimeCurrent } from "./runtime-current.ts";
import { currentGuest, type PhaseSeen, type StatusFacts } from "./phase.ts";

export type InstanceCondition =
  | "Scheduled"
  | "ImageReady"
  | "DisksReady"
  | "NetworkReady"
  | "Migratable"
  | "RuntimeCurrent"
  | "Ready"
  | "Draining";
export type Verdict = Pick<Condition, "status" | "reason" | "message">;

const yes = (reason: string, message: string): Verdict => ({ status: "True", reason, message });
const no = ({ reason, message }: Problem): Verdict => ({ status: "False", reason, message });
const unknown = (reason: string, message: string): Verdict => ({ status: "Unknown", reason, message });

const notPlaced = (what: string) => unknown("NotScheduled", `${what} when the instance has a node`);

function scheduled({ plan, claim, problems, instance }: StatusFacts, phase: PhaseSeen): Verdict {
  const record = plan.record;
  if (record?.uid !== undefined) return yes("Bound", `its claim ${record.name} is bound to node ${record.node ?? "(unknown)"}`);
  if (instance.metadata.deletionTimestamp !== undefined) return no({ reason: "Deleting", message: "it is being deleted" });
  if (instance.spec.power === "Stopped") return no(phase);
  const blocked = problems.pool ?? problems.network ?? problems.claim;
  if (claim === undefined && blocked !== undefined) return no(blocked);
  return no(claim?.unscheduled ?? { reason: phase.reason, message: phase.message });
}

function imageReady({ instance, nodeName }: StatusFacts): Verdict {
  const image = instance.status?.guest?.image;
  if (image?.ready === true) return yes("Imported", `the image is on node ${nodeName ?? "(unknown)"}`);
  if (image !== undefined)
    return no({ reason: image.reason ?? "Fetching", message: image.message ?? "the image is being fetched" });
  if (nodeName === undefined) return notPlaced("its image is fetched");
  return unknown("WaitingForAgent", `the agent of node ${nodeName} has not yet said anything of the image`);
}

function disksReady({ instance, nodeName, problems }: StatusFacts): Verdict {
  if (problems.pool !== undefined) return no(problems.pool);
  const disks = instance.status?.guest?.disks;
  if (disks?.ready === true) return yes("Made", `its disks are on node ${nodeName ?? "(unknown)"}`);
  if (disks !== undefined) return no({ reason: disks.reason ?? "Making", message: disks.message ?? "its disks are being made" });
  if (nodeName === undefined) return notPlaced("its disks are made");
  return unknown("WaitingForAgent", `the agent of node ${nodeName} has not yet said anything of the disks`);
}

function networkReady(facts: StatusFacts, phase: PhaseSeen): Verdict {
  const { nics, problems, nodeName } = facts;
  if (problems.network !== undefined) return no(problems.network);
  if ((facts.instance.spec.nics ?? []).length === 0) return yes("NoNics", "it has no network card");
  if (nodeName === undefined) return notPlaced("its ports are made");
  const guest = currentGuest(facts);
  if (phase.phase === "Stopped")
    return no({ reason: phase.reason, message: "its network cards are unplugged while it is stopped" });
  const installed = new Set(guest?.nics?.filter((nic) => nic.installed).map((nic) => nic.name));
  const missing = nics.map(({ name }) => name).filter((name) => !installed.has(name));
  if (missing.length === 0) return yes("Installed", "OVN has installed the flows of its network cards");
  return no({
    reason: "NotInstalled",
    message: `OVN has not yet installed the flows of ${missing.join(", ")} on node ${nodeName}`,
  });
}

function ready({ claim }: StatusFacts, phase: PhaseSeen, network: Verdict): Verdict {
  if (phase.phase === "Unknown") return unknown(phase.reason, phase.message);
  if (phase.phase !== "Running" && phase.phase !== "Migrating") return no(phase);
  // Until the holder runs, no PodDisruptionBudget protects the claim.
  if (claim?.holderRunning !== true) return no({ reason: "HolderStarting", message: `the holder of its claim does not run yet` });
  if (network.status !== "True") return no(network);
  return yes(phase.reason === "Migrating" ? phase.reason : "Running", phase.message);
}

/** Whether its guest can be moved while it runs, wherever that may be. */
function migratable(facts: StatusFacts, phase: PhaseSeen): Verdict {
  const guest = currentGuest(facts);
  if (guest?.state !== "Running" || (phase.phase !== "Running" && phase.phase !== "Migrating"))
    return unknown("NotRunning", "known when it runs");
  const problem = migrationProblem(guest);
  return problem === undefined ? yes("Migratable", "its guest can be moved to another node while it runs") : no(problem);
}

/** All conditions, in the order that they come true. Pure. */
export function computeConditions(facts: StatusFacts, phase: PhaseSeen): [InstanceCondition, Verdict][] {
  const network = networkReady(facts, phase);
  const draining = drainingVerdict(facts.drain, findCondition(facts.instance.status?.conditions, "Draining"));
  return [
    ["Scheduled", scheduled(facts, phase)],
    ["ImageReady", imageReady(facts)],
    ["DisksReady", disksReady(facts)],
    ["NetworkReady", network],
    ["Migratable", migratable(facts, phase)],
    [
      "RuntimeCurrent",
      runtimeCurrent({ guest: currentGuest(facts), node: facts.nodeName, current: facts.runtime, move: facts.move }),
    ],
    ["Ready", ready(facts, phase, network)],
    ...(draining === undefined ? [] : [["Draining", draining] as [InstanceCondition, Verdict]]),
  ];
}
