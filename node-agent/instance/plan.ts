/** What to do next with one instance of this node, and what to say of it. Pure: no clock, no I/O, no memory. */
import type { GuestStatus, InstanceSpec } from "../../crds/instance.ts";
import type { ClaimState } from "../claim/state.ts";
import type { GuestExit, Observed } from "./driver.ts";
import type { RestartNote } from "./restart-note.ts";
import { restartDecision } from "./restart.ts";

/** All that is known of an instance at one moment. */
export interface Situation {
  now: number;
  spec: Pick<InstanceSpec, "power" | "restart" | "restartedAt">;
  /** The user deletes it. */
  deleting: boolean;
  /** The claim that the operator names, if it is bound to this node. */
  claim: { uid: string; state: ClaimState } | undefined;
  observed: Observed;
  /** The claim that the process runs in, when that is another one. */
  otherClaim: ClaimState | undefined;
  note: RestartNote;
  /** The last attempt to start it in this claim, if it failed. */
  failure: Failure | undefined;
  /** What was last said. */
  said: GuestStatus | undefined;
  /** It is being moved to another node: whether and where it runs is that move's business. */
  moving?: boolean;
}

/** Why a start did not come about. */
export interface Failure {
  stage: "image" | "disks" | "network" | "start";
  reason: string;
  message: string;
  /** When it is tried again, ms since 1970. */
  retryAt: number;
}

export type Step =
  | { step: "prepare" }
  | { step: "ensure-image" }
  | { step: "ensure-volumes" }
  | { step: "ensure-taps" }
  | { step: "start" }
  | { step: "stop"; mode: "clean" | "force"; deadlineMs: number }
  | { step: "remove-taps" }
  | { step: "remove-volumes" }
  | { step: "forget" };

/** What is to be said, before details of the process are added. `state` undefined: nothing new. */
export interface Outlook {
  state: GuestStatus["state"] | undefined;
  reason?: string;
  message?: string;
  claimUid?: string;
}

export interface Plan {
  steps: Step[];
  /** Said while the steps run, if they take long enough to be worth a word. */
  during: Outlook;
  /** Said when the steps are done; with steps that change the process, the next plan says it. */
  after: Outlook;
  /** When to look again without any event, ms from now. */
  againMs?: number;
}

/** How long a guest may take to shut down, ms: a server that flushes its databases needs a while. */
export const STOP_MS = 120_000;
/** When its disks are deleted anyway. */
const DELETE_STOP_MS = 10_000;
/** Left of a claim's grace period for QEMU's end, the holder's and the kubelet. */
const GRACE_MARGIN_MS = 5_000;
/** Its claim is gone: the kubelet kills what is in it any moment. */
const LOST_STOP_MS = 3_000;
/** The API server could not be asked about a claim. */
const UNKNOWN_RETRY_MS = 5_000;

const ALIVE = new Set<Observed["state"]>(["starting", "running", "paused"]);
export const isAlive = (observed: Observed): boolean => ALIVE.has(observed.state);

const quiet: Outlook = { state: undefined };
const nothing: Plan = { steps: [], during: quiet, after: quiet };

export function planInstance(s: Situation): Plan {
  if (s.moving === true) return { ...nothing, steps: [{ step: "prepare" }, { step: "ensure-taps" }] };
  if (s.deleting) return planRelease(s);
  if (s.spec.power === "Stopped") return planPowerOff(s);
  if (s.claim === undefined) return planWithoutClaim(s);
  const { uid, state } = s.claim;
  if (isLost(state)) return planLostClaim(s, uid, state);
  if (isAlive(s.observed)) return planAlive(s, uid);
  return state.state === "alive" ? planStart(s, uid) : { ...nothing, againMs: UNKNOWN_RETRY_MS };
}

/** Nothing may run in it any more. */
const isLost = ({ state }: ClaimState): boolean => state === "deleting" || state === "over" || state === "gone";

function planRelease(s: Situation): Plan {
  if (s.said?.state === "Released" && s.observed.state === "absent" && s.observed.note === undefined) {
    return nothing;
  }
  const claimUid = s.claim?.uid ?? s.said?.claimUid;
  return {
    steps: [...stopIfAlive(s, DELETE_STOP_MS), { step: "remove-taps" }, { step: "remove-volumes" }, { step: "forget" }],
    during: says("Stopping", "Deleting", "the instance is being deleted; its guest is shut down", claimUid),
    after: { state: "Released", ...(claimUid === undefined ? {} : { claimUid }) },
  };
}

function planPowerOff(s: Situation): Plan {
  const claimUid = s.claim?.uid;
  if (isAlive(s.observed)) {
    return {
      steps: stopIfAlive(s, stopDeadline(s, STOP_MS)),
      during: says("Stopping", "PowerOff", "spec.power is Stopped; its guest is shut down", s.observed.claimUid),
      after: quiet,
    };
  }
  // Without a claim of which it was told, nothing is asked of the agent.
  const worthSaying = claimUid !== undefined || (s.said !== undefined && s.said.state !== "Stopped");
  const stopped = says("Stopped", "PowerOff", "spec.power is Stopped", claimUid ?? s.said?.claimUid);
  return {
    steps: [{ step: "remove-taps" }],
    during: quiet,
    after: worthSaying ? stopped : quiet,
  };
}

/** The operator names no bound claim. A process that runs all the same is left alone: not to know is no reason to stop it. */
function planWithoutClaim(s: Situation): Plan {
  if (!isAlive(s.observed)) return nothing;
  if (s.otherClaim !== undefined && isLost(s.otherClaim)) return planLostClaim(s, s.observed.claimUid ?? "", s.otherClaim);
  return { steps: [], during: quiet, after: runningOutlook(s, s.observed.claimUid) };
}

function planLostClaim(s: Situation, claimUid: string, state: ClaimState): Plan {
  const why =
    state.state === "deleting"
      ? "its claim is being deleted"
      : state.state === "over"
        ? `its claim has ended: ${state.why}`
        : "its claim is gone";
  if (isAlive(s.observed)) {
    const left = state.state === "deleting" ? state.endsAt - s.now - GRACE_MARGIN_MS : LOST_STOP_MS;
    return {
      steps: stopIfAlive(s, Math.min(STOP_MS, left)),
      during: says("Stopping", "ClaimLost", `${why}; its guest is shut down`, s.observed.claimUid),
      after: quiet,
    };
  }
  const exit = exitIn(s, claimUid);
  const clean = exit?.reason === "Stopped" || exit?.reason === "GuestShutdown";
  return {
    steps: [{ step: "remove-taps" }],
    during: quiet,
    after: clean
      ? says("Stopped", "ClaimLost", `${why}; its guest was shut down and is started again in a new claim`, claimUid)
      : says("Failed", "ClaimLost", `${why}; its guest is started again in a new claim`, claimUid),
  };
}

function planAlive(s: Situation, claimUid: string): Plan {
  if (s.observed.claimUid !== undefined && s.observed.claimUid !== claimUid) {
    return {
      steps: stopIfAlive(s, stopDeadline(s, STOP_MS)),
      during: says(
        "Stopping",
        "ClaimReplaced",
        "it ran in an earlier claim; its guest is shut down and started in the new one",
        claimUid,
      ),
      after: quiet,
    };
  }
  if (restartAsked(s)) {
    return {
      steps: stopIfAlive(s, STOP_MS),
      during: says("Stopping", "Restarting", "spec.restartedAt has changed; its guest is shut down and started again", claimUid),
      after: quiet,
    };
  }
  return { steps: [{ step: "ensure-taps" }], during: quiet, after: runningOutlook(s, claimUid) };
}

/** A value other than the one acted on; a value never acted on, because nothing was noted, is not acted on either. */
const restartAsked = (s: Situation): boolean =>
  s.spec.restartedAt !== undefined && s.note.known && s.spec.restartedAt !== s.note.restartedAt;

function planStart(s: Situation, claimUid: string): Plan {
  const exit = exitIn(s, claimUid);
  if (exit !== undefined && !restartAsked(s)) {
    const decision = restartDecision({ exit, policy: s.spec.restart, note: s.note, now: s.now });
    if (decision.restart === "never") {
      const state = exit.reason === "GuestShutdown" ? "Stopped" : "Failed";
      return { steps: [{ step: "remove-taps" }], during: quiet, after: says(state, exit.reason, exit.message, claimUid) };
    }
    if (decision.waitMs > 0) {
      const state = exit.reason === "GuestShutdown" ? "Stopped" : "Failed";
      const message = `${exit.message}; it is started again in ${Math.ceil(decision.waitMs / 1000)} s`;
      // What was said keeps its figure: a countdown would be a write per look.
      const same = s.said?.state === state && s.said.reason === exit.reason && s.said.claimUid === claimUid;
      const words = same && s.said?.message?.startsWith(exit.message) ? s.said.message : message;
      return { steps: [], during: quiet, after: says(state, exit.reason, words, claimUid), againMs: decision.waitMs };
    }
  }
  if (s.failure !== undefined && s.failure.retryAt > s.now) {
    return { steps: [], during: quiet, after: failureOutlook(s.failure, claimUid), againMs: s.failure.retryAt - s.now };
  }
  return {
    steps: [
      { step: "prepare" },
      { step: "ensure-image" },
      { step: "ensure-volumes" },
      { step: "ensure-taps" },
      { step: "start" },
    ],
    during: s.failure === undefined ? says("Preparing", undefined, undefined, claimUid) : failureOutlook(s.failure, claimUid),
    after: quiet,
  };
}

/** What is said of a start that did not come about. An image or a disk may yet come; QEMU that ended has failed. */
export function failureOutlook(failure: Failure, claimUid: string): Outlook {
  return says(failure.stage === "start" ? "Failed" : "Preparing", failure.reason, failure.message, claimUid);
}

const PAUSED: Record<string, readonly [GuestStatus["state"], string, string]> = {
  suspended: ["Running", "GuestSuspended", "the guest has put itself to sleep"],
  paused: ["Running", "Paused", "the guest's CPUs are paused by somebody with access to QEMU's monitor"],
  "io-error": [
    "Failed",
    "DiskError",
    "the guest is halted because its disk could not be written or read; make room in the pool or mend it, then change spec.restartedAt",
  ],
  "internal-error": [
    "Failed",
    "InternalError",
    "QEMU cannot run the guest any further (internal error); change spec.restartedAt to start it again",
  ],
};

function runningOutlook(s: Situation, claimUid: string | undefined): Outlook {
  const { state, runState } = s.observed;
  if (state === "starting") return says("Starting", undefined, undefined, claimUid);
  if (runState === "not-answering") {
    return says("Running", "MonitorSilent", "QEMU runs, but its monitor does not answer", claimUid);
  }
  if (state !== "paused") return says("Running", undefined, undefined, claimUid);
  const known = PAUSED[runState ?? ""];
  return known === undefined ? says("Starting", undefined, undefined, claimUid) : says(known[0], known[1], known[2], claimUid);
}

function says(
  state: GuestStatus["state"],
  reason: string | undefined,
  message: string | undefined,
  claimUid: string | undefined,
): Outlook {
  return {
    state,
    ...(reason === undefined ? {} : { reason }),
    ...(message === undefined ? {} : { message }),
    ...(claimUid === undefined ? {} : { claimUid }),
  };
}

function stopIfAlive(s: Situation, deadlineMs: number): Step[] {
  if (!isAlive(s.observed)) return [];
  return [deadlineMs > 0 ? { step: "stop", mode: "clean", deadlineMs } : { step: "stop", mode: "force", deadlineMs: 0 }];
}

/** A claim that is being deleted as well shortens what a guest is given. */
function stopDeadline(s: Situation, wanted: number): number {
  const state = s.otherClaim ?? s.claim?.state;
  return state?.state === "deleting" ? Math.min(wanted, state.endsAt - s.now - GRACE_MARGIN_MS) : wanted;
}

/** How the guest ended, if its last run was in this claim. */
function exitIn(s: Situation, claimUid: string): GuestExit | undefined {
  const { note, exit } = s.observed;
  if (s.observed.state !== "exited" || note?.run?.claimUid !== claimUid) return undefined;
  return exit ?? note.run.exit;
}
