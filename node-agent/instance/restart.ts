/** Whether and when a guest that ended is started again. Pure. */
import type { InstanceSpec } from "../../crds/instance.ts";
import type { GuestExit } from "./driver.ts";
import type { RestartNote } from "./restart-note.ts";

/** A run of this length shows that the guest is sound: what follows is its first failure again. */
export const SOUND_RUN_MS = 10 * 60_000;
const FIRST_WAIT_MS = 5_000;
const LONGEST_WAIT_MS = 5 * 60_000;

export type RestartDecision = { restart: "never" } | { restart: "after"; waitMs: number };

/**
 * `waitMs` counts from now; 0: at once. An end that was asked for is always followed by a start, for it was asked for by one
 * who wants it to run again; so is the end of the whole node. Otherwise spec.restart decides, with a wait that doubles.
 */
export function restartDecision(facts: {
  exit: GuestExit;
  policy: InstanceSpec["restart"];
  note: RestartNote;
  now: number;
}): RestartDecision {
  const { exit, policy, note, now } = facts;
  if (exit.reason === "Stopped" || exit.reason === "NodeRestarted") return { restart: "after", waitMs: 0 };
  if (policy === "Never" || (policy === "OnFailure" && exit.reason === "GuestShutdown")) return { restart: "never" };
  const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(note.streak, 16));
  return { restart: "after", waitMs: Math.max(0, Date.parse(exit.at) + wait - now) };
}

/** The note after a start: how many follow each other quickly, and how many there were in all. */
export function noteStart(
  note: RestartNote,
  run: { exit: GuestExit | undefined; startedAt: string | undefined },
  restartedAt: string | undefined,
): RestartNote {
  const base = { ...note, known: true, ...(restartedAt === undefined ? {} : { restartedAt }) };
  const { exit, startedAt } = run;
  if (exit === undefined || exit.reason === "Stopped" || exit.reason === "NodeRestarted") return { ...base, streak: 0 };
  const lasted = startedAt === undefined ? 0 : Date.parse(exit.at) - Date.parse(startedAt);
  return { ...base, restarts: note.restarts + 1, streak: lasted >= SOUND_RUN_MS ? 0 : note.streak + 1 };
}
