/** Programs of the agent's own image, run in its own pod. */
import { execa } from "execa";
import { CommandError } from "../errors.ts";

export interface HereOptions {
  /** After this the program is killed and the call fails. */
  deadlineMs: number;
  signal?: AbortSignal | undefined;
}

/** Runs a program and waits for its end. Throws CommandError with the program's own words. Returns its stdout. */
export async function here(command: string, args: readonly string[], options: HereOptions): Promise<string> {
  const result = await execa(command, args, {
    reject: false,
    stdin: "ignore",
    timeout: options.deadlineMs,
    killSignal: "SIGKILL",
    ...(options.signal ? { cancelSignal: options.signal } : {}),
  });
  if (!result.failed) return result.stdout;
  const words = result.stderr.trim().split("\n").slice(-5).join("; ").slice(0, 2000);
  const how = result.timedOut
    ? `did not finish within ${options.deadlineMs} ms`
    : result.isCanceled
      ? "was cancelled"
      : words || result.shortMessage;
  throw new CommandError(
    {
      command: [command, ...args].join(" "),
      ...(result.exitCode === undefined ? {} : { exitCode: result.exitCode }),
      timedOut: result.timedOut,
      stderr: result.stderr,
      message: `${command}: ${how}`,
    },
    { cause: result },
  );
}
