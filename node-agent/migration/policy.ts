/** When memory is switched over, and what is done when the guest writes it faster than it can be sent. Pure: no clock, no I/O. */
import type { MigrationPolicy } from "../../crds/migration.ts";
import type { MoveCounters } from "../instance/move.ts";
import { bytesText, rateText, timeText } from "./words.ts";

/** The counters at one moment; ms of the monotonic clock. */
export interface Sample {
  at: number;
  counters: MoveCounters;
}

export interface PolicyFacts {
  now: number;
  /** When copying began, the same clock. */
  since: number;
  policy: MigrationPolicy;
  /** Oldest first; one for each pass over the memory, and the latest. */
  samples: readonly Sample[];
  /** Whether the guest's CPUs are being slowed already. */
  throttled: boolean;
  /** Whether the target could take pages on demand. */
  canPostCopy: boolean;
}

export interface PolicyDecision {
  do: "wait" | "switch" | "throttle" | "post-copy" | "abort";
  /** Why memory does not converge, and what is done about it; said for as long as that holds. */
  stalled?: string;
  /** For abort. */
  reason?: "TimedOut" | "NotConverging";
}

/** A stall is told from passes, not from a moment: this many have to follow each other without gain. */
export const STALL_ROUNDS = 3;
/** Each of them must leave at least this share of what the one before it left, or it gains. */
const GAIN = 0.9;
/**
 * And the guest must have written at least this share of what was sent. QEMU reckons its writing over the time from pass to pass, in which it
 * waits for the guest's CPUs, too; what it sends, we reckon within a pass. Seen: 125 MiB left after 88 passes, 352 MiB/s written by this,
 * and some 450 sent.
 */
const WRITTEN = 0.7;

/**
 * The guest is stopped only once what is left fits into the pause that policy allows. A stall: after the first pass, over three
 * passes, what is left has not shrunk by a tenth, and the guest has written about as much as was sent.
 */
export function decidePolicy(facts: PolicyFacts): PolicyDecision {
  const { policy, samples } = facts;
  const latest = samples.at(-1)?.counters;
  const expected = latest?.expectedPauseMs;
  // The first pass sends everything: what is expected during it is made up.
  if (latest !== undefined && expected !== undefined && latest.memory.rounds > 1 && expected <= policy.maxPauseMs) {
    return { do: "switch" };
  }
  const figures = stall(samples);
  if (isLate(facts)) {
    const words = figures === undefined || latest === undefined ? {} : { stalled: `${saying(figures, facts)}; the time is over` };
    return { do: "abort", reason: figures === undefined ? "TimedOut" : "NotConverging", ...words };
  }
  if (figures === undefined) return { do: "wait" };
  const words = saying(figures, facts);
  if (policy.onStall === "Abort") {
    return { do: "abort", reason: "NotConverging", stalled: `${words}; the move is given up (policy.onStall is Abort)` };
  }
  if (!mayThrottle(policy, facts.canPostCopy)) {
    return { do: "post-copy", stalled: `${words}; it goes on at the target before all its memory is there` };
  }
  const instead = policy.onStall === "PostCopy" ? "post-copy is not possible between these nodes, so " : "";
  // QEMU takes some passes until it slows them
  const percent = latest?.memory.throttlePercent;
  const stalled = `${words}; ${instead}its CPUs are slowed${percent === undefined ? "" : ` by ${percent} %`}`;
  return { do: facts.throttled ? "wait" : "throttle", stalled };
}

/** Whether the guest's CPUs may come to be slowed: where policy says so, or where post-copy, which it wants, is not possible. */
export const mayThrottle = ({ onStall }: Pick<MigrationPolicy, "onStall">, canPostCopy: boolean): boolean =>
  onStall === "Throttle" || (onStall === "PostCopy" && !canPostCopy);

/** Whether copying, of disks or memory, has taken longer than it may. */
export const isLate = ({ now, since, policy }: Pick<PolicyFacts, "now" | "since" | "policy">): boolean =>
  now - since >= policy.timeoutMs;

/** The last passes, if none of them gained. */
function stall(samples: readonly Sample[]): MoveCounters | undefined {
  const rounds = perRound(samples).slice(-STALL_ROUNDS - 1);
  const [latest] = rounds.slice(-1);
  if (latest === undefined || rounds.length <= STALL_ROUNDS) return undefined;
  const stuck = rounds.slice(1).every((one, index) => {
    const before = rounds[index]?.memory.remainingBytes ?? 0;
    const { remainingBytes, dirtyBytesPerSecond, bytesPerSecond } = one.memory;
    return remainingBytes >= before * GAIN && dirtyBytesPerSecond >= bytesPerSecond * WRITTEN;
  });
  return stuck ? latest : undefined;
}

/** The first counters of each pass after the first: what the pass before it has left. */
function perRound(samples: readonly Sample[]): MoveCounters[] {
  const found: MoveCounters[] = [];
  for (const { counters } of samples) {
    const { rounds } = counters.memory;
    if (rounds > 1 && rounds !== found.at(-1)?.memory.rounds) found.push(counters);
  }
  return found;
}

function saying({ memory, expectedPauseMs }: MoveCounters, { policy }: PolicyFacts): string {
  const left = `${bytesText(memory.remainingBytes)} left after ${memory.rounds} passes`;
  const pause =
    expectedPauseMs === undefined
      ? ""
      : `, a pause of ${timeText(expectedPauseMs)} where policy.maxPause allows ${timeText(policy.maxPauseMs)}`;
  return `the guest writes ${rateText(memory.dirtyBytesPerSecond)} of its memory while ${rateText(memory.bytesPerSecond)} are sent: ${left}${pause}`;
}

/** Keeps of a growing list of samples what the rule reads: the first of each of the last passes, and the latest. Pure. */
export function keepSamples(samples: readonly Sample[], next: Sample): Sample[] {
  const rounds = [...samples, next].filter(
    (one, index, all) => one.counters.memory.rounds !== all[index - 1]?.counters.memory.rounds,
  );
  const kept = rounds.slice(-STALL_ROUNDS - 2);
  return kept.at(-1) === next ? kept : [...kept, next];
}
