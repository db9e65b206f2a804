/** `status.guest` from what is planned to be said and what is known of the process. Pure. */
import type { GuestStatus } from "../../crds/instance.ts";
import { sameStatus } from "../../kube/index.ts";
import type { HostFacts } from "../host/index.ts";
import type { InstanceNote, Observed } from "./driver.ts";
import type { Outlook } from "./plan.ts";
import type { RestartNote } from "./restart-note.ts";

export interface Progress {
  image?: NonNullable<GuestStatus["image"]>;
  disks?: NonNullable<GuestStatus["disks"]>;
}

export interface GuestFacts {
  outlook: Outlook;
  observed: Observed;
  note: RestartNote;
  /** NICs with their taps, in the order of the spec; of a guest that does not run: none. */
  nics: NonNullable<GuestStatus["nics"]>;
  progress: Progress;
  said: GuestStatus | undefined;
  /** What guests that start now get; undefined: not known yet. */
  current?: Pick<HostFacts, "runtimeVersion" | "qemuVersion" | "machineTypes"> | undefined;
}

/** What to write; undefined when there is nothing to say. Facts of the last run stay when the guest does not run. */
export function guestStatus(facts: GuestFacts): GuestStatus | undefined {
  const { outlook, observed, note, said } = facts;
  if (outlook.state === undefined) return undefined;
  const run = observed.note?.run;
  const alive = observed.state === "running" || observed.state === "paused" || observed.state === "starting";
  const image = facts.progress.image ?? said?.image;
  const disks = facts.progress.disks ?? said?.disks;
  const base: GuestStatus = { state: outlook.state };
  if (outlook.reason !== undefined) base.reason = outlook.reason;
  if (outlook.message !== undefined) base.message = outlook.message.slice(0, 4096);
  if (outlook.claimUid !== undefined) base.claimUid = outlook.claimUid;
  if (outlook.state === "Released") return base;
  if (note.restarts > 0) base.restarts = note.restarts;
  if (note.restartedAt !== undefined) base.restartedAt = note.restartedAt;
  if (run !== undefined) {
    base.accelerator = run.accelerator;
    base.machineType = run.machineType;
    base.cpuModel = run.cpuModel;
    base.firmware = "SeaBIOS";
    base.runtimeVersion = run.runtimeVersion;
    if (run.qemuVersion !== undefined) base.qemuVersion = run.qemuVersion;
  }
  if (alive && run !== undefined) {
    base.startedAt = run.startedAt;
    if (observed.pid !== undefined) base.pid = observed.pid;
    base.agentConnected = observed.guestAgentOpen ?? false;
    if (observed.blockers !== undefined && observed.blockers.length > 0) base.blockers = blockersOf(observed.blockers);
    const updateBlockers = [...(observed.updateBlockers ?? []), ...unknownMachine(run, facts.current)];
    if (updateBlockers.length > 0) base.updateBlockers = blockersOf(updateBlockers);
  }
  if (image !== undefined) base.image = image;
  if (disks !== undefined) base.disks = disks;
  if (alive && facts.nics.length > 0) base.nics = facts.nics;
  return base;
}

/** The node's present runtime may be an older one, or one that has dropped the guest's machine type. */
function unknownMachine(
  { machineType, runtimeVersion }: NonNullable<InstanceNote["run"]>,
  current: GuestFacts["current"],
): string[] {
  if (current === undefined || runtimeVersion === current.runtimeVersion || current.machineTypes.includes(machineType)) return [];
  return [`QEMU ${current.qemuVersion} of the node's runtime does not know the guest's machine type ${machineType}`];
}

/** As many as a reader wants, and the API takes. */
const blockersOf = (reasons: readonly string[]): string[] => reasons.slice(0, 8).map((reason) => reason.slice(0, 512));

/** How soon a status is worth a write. */
export type Urgency = "now" | "soon" | "later";

/**
 * now: where things stay as they are. soon: what mostly lasts less than a second and is then overtaken. later: what is of no
 * consequence to anyone who waits.
 */
export function urgency(next: GuestStatus, before: GuestStatus | undefined): Urgency {
  if (before !== undefined && sameButFor(next, before, "agentConnected")) return "later";
  if (next.state === "Running") return (next.nics ?? []).every((nic) => nic.installed) ? "now" : "soon";
  // A reason while preparing is a hindrance; while stopping it only says who asked.
  const passing =
    next.state === "Starting" || next.state === "Stopping" || (next.state === "Preparing" && next.reason === undefined);
  return passing ? "soon" : "now";
}

const sameButFor = (a: GuestStatus, b: GuestStatus, key: keyof GuestStatus): boolean =>
  sameStatus({ ...a, [key]: undefined }, { ...b, [key]: undefined });
