/** What the launcher does next, from what runs on the node. Pure. */

export interface DaemonSeen {
  /** Version of the runtime that its process runs from; undefined: it does not run. */
  version: string | undefined;
}

export interface SwitchSeen {
  database: DaemonSeen & { file: boolean };
  vswitchd: DaemonSeen;
  /** A process that listens or runs in our place and is not from our runtime, in words. */
  stranger: string | undefined;
  /** Flows were saved by an upgrade that did not come to its end. */
  savedFlows: boolean;
  /** vswitchd is told to wait for flows before it forwards. */
  restoreWait: boolean;
}

export type Step =
  | "create-database"
  | "convert-database"
  | "start-database"
  | "stop-database"
  | "connect"
  | "save-flows"
  | "stop-vswitchd"
  | "settings"
  | "start-vswitchd"
  | "address"
  | "restore-flows"
  | "end-restore";

/**
 * Steps that bring the switch to version `want`, both daemons running. With nothing to do: `connect`, `settings`, `address`,
 * which change nothing themselves when all is right. Killed between any two steps, the next plan goes on.
 */
export function planSwitch(seen: SwitchSeen, want: string): Step[] {
  const { database, vswitchd } = seen;
  const steps: Step[] = [];
  if (database.version !== want) {
    if (database.version !== undefined) steps.push("stop-database");
    if (database.file) steps.push("convert-database");
    else steps.push("create-database");
    steps.push("start-database");
  }
  steps.push("connect");
  const upgrade = vswitchd.version !== undefined && vswitchd.version !== want;
  if (upgrade) steps.push("save-flows", "stop-vswitchd");
  steps.push("settings");
  if (vswitchd.version !== want) steps.push("start-vswitchd");
  steps.push("address");
  const restoring = upgrade || seen.savedFlows;
  if (restoring) steps.push("restore-flows");
  if (restoring || seen.restoreWait) steps.push("end-restore");
  return steps;
}

const CRASH_WINDOW_MS = 60_000;
/** So many ends within the window are answered at once: each costs guests about a second as it is. */
const FREE_CRASHES = 2;
const CRASH_CAP_MS = 15_000;

/** How long to wait before daemons are started again, from when they ended (ms of one clock): a crash must not become a storm. */
export function crashDelayMs(deaths: readonly number[], now: number): number {
  const recent = deaths.filter((at) => now - at < CRASH_WINDOW_MS).length;
  return recent <= FREE_CRASHES ? 0 : Math.min(CRASH_CAP_MS, 500 * 2 ** (recent - FREE_CRASHES - 1));
}
