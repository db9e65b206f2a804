/** The answer of a check before a move. Pure. */
import type { Problem } from "../instance/facts.ts";

/** Something is in the way. `forMs`: a wait that has lasted longer ends the move; without it it may last. */
export type Refusal = ({ state: "wait"; forMs?: number } & Problem) | ({ state: "fail" } & Problem);
export type Check = { state: "ok" } | Refusal;

export const OK: Check = { state: "ok" };
/** A node that comes back, a pool that is made, a guest that boots: longer than any of these takes when all is well. */
export const RECOVER_MS = 10 * 60_000;

export const fail = (reason: string, message: string): Refusal => ({ state: "fail", reason, message });
export const wait = (reason: string, message: string, forMs?: number): Refusal => ({
  state: "wait",
  reason,
  message,
  ...(forMs === undefined ? {} : { forMs }),
});
