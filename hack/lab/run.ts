/** Commands with a deadline, and waits with a deadline: nothing in the lab may hang. */
import { setTimeout as delay } from "node:timers/promises";
import { execa, ExecaError } from "execa";

/** What a person can act on; printed without a stack. */
export class LabError extends Error {
  override readonly name = "LabError";
}

/** What waiting longer does not mend: ends `eventually` at once. */
export class HopelessError extends LabError {}

export interface RunOptions {
  deadlineMs?: number;
  input?: string;
  cwd?: string;
  env?: Record<string, string>;
  signal?: AbortSignal;
}

/** Last lines of what a command printed: enough to see why it failed. */
const tail = (text: string, lines = 20): string => {
  const all = text.trim().split("\n");
  // The cause often stands where the trouble began, not where it ended.
  const cause = all
    .slice(0, -lines)
    .filter((line) => /error|cannot|failed|refused/i.test(line))
    .slice(0, 5);
  return [...cause, ...all.slice(-lines)].join("\n");
};

/** Runs a command to its end and gives its standard output. Throws LabError with its own words when it fails or is late. */
export const run = async (command: string, args: string[], options: RunOptions = {}): Promise<string> => {
  const deadlineMs = options.deadlineMs ?? 30_000;
  try {
    const result = await execa(command, args, {
      timeout: deadlineMs,
      forceKillAfterDelay: 2_000,
      maxBuffer: 64_000_000,
      ...(options.input === undefined ? { stdin: "ignore" as const } : { input: options.input }),
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      ...(options.env === undefined ? {} : { env: options.env }),
      ...(options.signal === undefined ? {} : { cancelSignal: options.signal }),
    });
    return result.stdout;
  } catch (error) {
    if (!(error instanceof ExecaError)) throw error;
    const words = tail(`${error.stdout ?? ""}\n${error.stderr ?? ""}`);
    const how = error.timedOut
      ? `was not done after ${deadlineMs / 1000} s`
      : `failed (${error.exitCode ?? error.code ?? error.signal})`;
    throw new LabError(`${command} ${args.join(" ")} ${how}:\n${words}`, { cause: error });
  }
};

/** Whether a command ends well; its words are of no interest. */
export const succeeds = async (command: string, args: string[], options: RunOptions = {}): Promise<boolean> => {
  try {
    await run(command, args, options);
    return true;
  } catch (error) {
    if (error instanceof LabError) return false;
    throw error;
  }
};

/**
 * Asks until the answer is not undefined, for what gives no event to wait for.
 * Throws LabError saying what was waited for, and the last error, when the deadline has passed.
 */
export const eventually = async <T>(
  what: string,
  ask: () => Promise<T | undefined>,
  { deadlineMs = 30_000, everyMs = 50 }: { deadlineMs?: number; everyMs?: number } = {},
): Promise<T> => {
  const end = performance.now() + deadlineMs;
  let cause: unknown;
  for (;;) {
    try {
      const answer = await ask();
      if (answer !== undefined) return answer;
    } catch (error) {
      if (error instanceof HopelessError) throw error;
      cause = error;
    }
    if (performance.now() > end) {
      const why = cause instanceof Error ? `: ${cause.message}` : "";
      throw new LabError(`${what}: not so after ${deadlineMs / 1000} s${why}`, { cause });
    }
    await delay(everyMs);
  }
};

/** Does several things at once and waits for all of them, also when one fails: nothing goes on behind the caller's back. */
export const together = async <T extends readonly unknown[]>(works: { [K in keyof T]: Promise<T[K]> }): Promise<T> => {
  const results = await Promise.allSettled(works);
  const failed = results.find((one) => one.status === "rejected");
  if (failed) throw failed.reason;
  return Promise.all(works);
};
