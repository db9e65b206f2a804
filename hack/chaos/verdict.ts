/** What a broken move is judged by: who ran when, and what is left. Pure. */

/** A QEMU that began or ceased to run its guest's CPUs. */
export interface RunChange {
  /** Milliseconds since 1970, by the one clock of the machine. */
  at: number;
  /** Names the process. */
  qemu: string;
  running: boolean;
}

const LINE = /^(\d+)@(\d+\.\d+):vm_state_notify running (\d) /;

/** The lines that QEMU's own trace `vm_state_notify` left in a guest's stderr log. */
export const runChanges = (log: string): RunChange[] =>
  log.split("\n").flatMap((line) => {
    const [, pid, seconds, running] = LINE.exec(line) ?? [];
    return pid === undefined ? [] : [{ at: Math.round(Number(seconds) * 1e6) / 1e3, qemu: pid, running: running === "1" }];
  });

/**
 * The most QEMUs that ran the guest at one moment.
 * @param ends when processes ended whose last word is that they run: they were killed
 */
export const mostRunning = (changes: readonly RunChange[], ends: ReadonlyMap<string, number> = new Map()): number => {
  const all = [...changes, ...[...ends].map(([qemu, at]) => ({ at, qemu, running: false }))];
  const running = new Set<string>();
  let most = 0;
  // What ceases at the same moment as another begins has not run beside it.
  for (const { qemu, running: runs } of all.toSorted((a, b) => a.at - b.at || Number(a.running) - Number(b.running))) {
    if (runs) running.add(qemu);
    else running.delete(qemu);
    most = Math.max(most, running.size);
  }
  return most;
};

/** Whether the guest's own account of a pause fits: from the last stop before it until the next start, in ms. */
export const pauses = (changes: readonly RunChange[]): number[] => {
  const sorted = changes.toSorted((a, b) => a.at - b.at);
  const found: number[] = [];
  const running = new Set<string>();
  let stoppedAt: number | undefined;
  for (const { at, qemu, running: runs } of sorted) {
    if (runs) running.add(qemu);
    else running.delete(qemu);
    if (running.size === 0) stoppedAt ??= at;
    else if (stoppedAt !== undefined) {
      found.push(at - stoppedAt);
      stoppedAt = undefined;
    }
  }
  return found;
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
  seconds: number;
}

/** The table of docs/chaos.md. */
export const table = (outcomes: readonly Outcome[]): string => {
  const phases = [...new Set(outcomes.map(({ phase }) => phase))];
  const faults = [...new Set(outcomes.map(({ fault }) => fault))];
  const cell = (phase: string, fault: string): string => {
    const one = outcomes.find((outcome) => outcome.phase === phase && outcome.fault === fault);
    if (one === undefined) return "-";
    return one.ok ? one.outcome : `**BAD** ${one.outcome}: ${one.why ?? ""}`;
  };
  return [
    `| fault | ${phases.join(" | ")} |`,
    `|---|${phases.map(() => "---|").join("")}`,
    ...faults.map((fault) => `| ${fault} | ${phases.map((phase) => cell(phase, fault)).join(" | ")} |`),
  ].join("\n");
};
