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
 *
 * A userspace vswitchd forwards nothing while it has no database, and looks for a lost one only after a second: an upgrade
 * stops it first and replaces the database while it is stopped.
 */
export function planSwitch(seen: SwitchSeen, want: string): Step[] {
  const { database, vswitchd } = seen;
  const upgrade = vswitchd.version !== undefined && vswitchd.version !== want;
  const replaceDatabase = database.version !== want;
  const steps: Step[] = [];
  const leave: Step[] = upgrade ? ["save-flows", "stop-vswitchd"] : [];
  if (upgrade && database.version !== undefined) steps.push("connect", ...leave);
  if (replaceDatabase) {
    if (database.version !== undefined) steps.push("stop-database");
    steps.push(database.file ? "convert-database" : "create-database", "start-database");
  }
  if (replaceDatabase || steps.length === 0) steps.push("connect");
  // Its tables can be read while there is no database, but not what it is told to do with them.
  if (upgrade && database.version === undefined) steps.push(...leave);
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
