/** What a broken move is judged by: who ran when, and how it ended. Pure. */

/** A QEMU that began or ceased to run its guest's CPUs. */
export interface RunChange {
  /** Milliseconds since 1970, by the one clock of the machine. */
  at: number;
  /** Names the QEMU: its node and the log that it alone writes to. */
  qemu: string;
  running: boolean;
}

// The number in front is that of the thread that did it: one QEMU has several, and two nodes may have the same.
const LINE = /^\d+@(\d+\.\d+):vm_state_notify running (\d) /;

/** The lines that QEMU's own trace `vm_state_notify` left in the stderr log of one QEMU. */
export const runChanges = (log: string, qemu: string): RunChange[] =>
  log.split("\n").flatMap((line) => {
    const [, seconds, running] = LINE.exec(line) ?? [];
    return seconds === undefined ? [] : [{ at: Math.round(Number(seconds) * 1e6) / 1e3, qemu, running: running === "1" }];
  });

type Ends = ReadonlyMap<string, number>;

/** @param ends when processes ended whose last word is that they run: they were killed */
const inOrder = (changes: readonly RunChange[], ends: Ends = new Map()): RunChange[] =>
  // What ceases at the same moment as another begins has not run beside it.
  [...changes, ...[...ends].map(([qemu, at]) => ({ at, qemu, running: false }))].toSorted(
    (a, b) => a.at - b.at || Number(a.running) - Number(b.running),
  );

/** The most QEMUs that ran the guest at one moment. */
export const mostRunning = (changes: readonly RunChange[], ends?: Ends): number => {
  const running = new Set<string>();
  let most = 0;
  for (const { qemu, running: runs } of inOrder(changes, ends)) {
    if (runs) running.add(qemu);
    else running.delete(qemu);
    most = Math.max(most, running.size);
  }
  return most;
};

/** Who ran when, in ms from the first change on, for whoever has to find out why. */
export const runsOf = (changes: readonly RunChange[], ends?: Ends): string => {
  const sorted = inOrder(changes, ends);
  const start = sorted[0]?.at ?? 0;
  return sorted.map(({ at, qemu, running }) => `${(at - start).toFixed(1)} ${qemu} ${running ? "runs" : "stops"}`).join(", ");
};

interface Pause {
  ms: number;
  /** The QEMU that stopped last, and the one that ran first. */
  from: string;
  to: string;
}

const pausesOf = (changes: readonly RunChange[]): Pause[] => {
  const found: Pause[] = [];
  const running = new Set<string>();
  let stopped: RunChange | undefined;
  for (const change of changes.toSorted((a, b) => a.at - b.at)) {
    if (change.running) running.add(change.qemu);
    else running.delete(change.qemu);
    if (running.size === 0) stopped ??= change;
    else if (stopped !== undefined) {
      found.push({ ms: change.at - stopped.at, from: stopped.qemu, to: change.qemu });
      stopped = undefined;
    }
  }
  return found;
};

/** The times in which nobody ran, in ms: from the last stop until the next start. */
export const pauses = (changes: readonly RunChange[]): number[] => pausesOf(changes).map(({ ms }) => ms);

/** How long nobody ran when the guest last went from one QEMU to another, in ms; undefined: it did not. */
export const pauseOfMove = (changes: readonly RunChange[]): number | undefined =>
  pausesOf(changes).findLast(({ from, to }) => from !== to)?.ms;

/** An agent that is replaced takes a second at the least; news of the guest from the API server, a good deal less. */
const PAUSE_OFF_MS = 500;

/**
 * What is untrue in the pause that a finished live move tells, in ms; undefined: nothing.
 * @param mayBeUnknown an agent was replaced, and what it alone knew is gone
 */
export const pauseProblem = (
  told: number | undefined,
  changes: readonly RunChange[],
  mayBeUnknown: boolean,
): string | undefined => {
  const real = pauseOfMove(changes);
  const isTrue = told === undefined ? mayBeUnknown : Math.abs(told - (real ?? 0)) <= PAUSE_OFF_MS;
  if (isTrue) return undefined;
  return `the move tells ${told === undefined ? "no pause" : `a pause of ${told} ms`}, by the QEMUs it was ${real ?? "none"}`;
};

/** The QEMUs whose last word is that they run. */
export const runningNow = (changes: readonly RunChange[]): string[] => {
  const last = new Map(inOrder(changes).map(({ qemu, running }) => [qemu, running]));
  return [...last].filter(([, running]) => running).map(([qemu]) => qemu);
};

export interface Outcome {
  phase: string;
  fault: string;
  /** Phase of the Migration in the end, with its reason. */
  outcome: string;
  recordsLost: number;
  maxRunningCopies: number;
  leftovers: string[];
  ok: boolean;
  /** What was wrong, where it was not ok. */
  why?: string;
  /** The Migration's own words, where it did not succeed at its first attempt. */
  said?: string;
  /** The commit that it ran on; with a + where the tree had changes. */
  commit?: string;
  seconds: number;
}

const tableOf = (outcomes: readonly Outcome[]): string => {
  const phases = [...new Set(outcomes.map(({ phase }) => phase))];
  const faults = [...new Set(outcomes.map(({ fault }) => fault))];
  const cell = (phase: string, fault: string): string => {
    const one = outcomes.find((outcome) => outcome.phase === phase && outcome.fault === fault);
    if (one === undefined) return "-";
    const mark = one.commit === undefined ? " \\*" : "";
    return (one.ok ? one.outcome : `**BAD** ${one.outcome}: ${one.why ?? ""}`) + mark;
  };
  return [
    `| fault | ${phases.join(" | ")} |`,
    `|---|${phases.map(() => "---|").join("")}`,
    ...faults.map((fault) => `| ${fault} | ${phases.map((phase) => cell(phase, fault)).join(" | ")} |`),
  ].join("\n");
};

/** Whether this is one of the cases that show that the judge can condemn. */
const isControl = ({ phase }: Outcome): boolean => phase === CONTROL;
export const CONTROL = "control";

/** The tables of docs/chaos.md. */
export const tables = (outcomes: readonly Outcome[]): string => {
  const of = (which: (one: Outcome) => boolean): string => tableOf(outcomes.filter(which));
  const isCold = ({ phase }: Outcome): boolean => phase.startsWith("cold");
  const commits = [...new Set(outcomes.map(({ commit = "an earlier commit" }) => commit))].map(
    (commit) => `${outcomes.filter((one) => (one.commit ?? "an earlier commit") === commit).length} on ${commit}`,
  );
  return [
    of((one) => !isControl(one) && !isCold(one)),
    ...(outcomes.some(isCold) ? ["Cold moves:", of(isCold)] : []),
    ...(outcomes.some(isControl) ? ["Controls: the judge must condemn what was broken on purpose.", of(isControl)] : []),
    ...(outcomes.some(({ commit }) => commit === undefined)
      ? ["\\* ran on an earlier commit, whose judge did not yet prove the phase and the fault in each case."]
      : []),
    `Cases by commit: ${commits.join(", ")}.`,
  ].join("\n\n");
};
