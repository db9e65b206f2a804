/** What a Migration's owner wants no more of, or waits for no longer: the same for every kind of move. Pure. */
import type { Migration } from "../../crds/migration.ts";
import type { Why } from "./notes.ts";
import { timeText } from "./words.ts";

/** Why it is not to go on; undefined: it is. */
export function unwanted({ spec, metadata }: Pick<Migration, "spec" | "metadata">): Why | undefined {
  if (spec.cancel !== true && metadata.deletionTimestamp === undefined) return undefined;
  return { reason: "Cancelled", message: "it was cancelled", retryable: false };
}

/** `what` took so long: "it", or "copying". */
export const tooLong = (what: string, timeoutMs: number): Why => ({
  reason: "TimedOut",
  message: `${what} took longer than policy.timeout (${timeText(timeoutMs)})`,
  retryable: false,
});

/** For a status, which takes no more of a message. */
export const toldWhy = (why: Why | undefined): Partial<Why> =>
  why === undefined ? {} : { ...why, message: why.message.slice(0, 4_096) };
