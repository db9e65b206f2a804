/**
 * Something that a user or the cluster's administrator can mend. It becomes a condition and an event, and is tried again.
 * `reason` is one CamelCase word; the message is a sentence that says what to change.
 */
export class UserError extends Error {
  readonly reason: string;

  constructor(reason: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "UserError";
    this.reason = reason;
  }
}

/** A program on the node that did not do what it was asked: its own words, and what it was asked. */
export class CommandError extends Error {
  readonly command: string;
  readonly exitCode: number | undefined;
  readonly timedOut: boolean;
  readonly stderr: string;

  constructor(
    what: { command: string; exitCode?: number; timedOut: boolean; stderr: string; message: string },
    options?: ErrorOptions,
  ) {
    super(what.message, options);
    this.name = "CommandError";
    this.command = what.command;
    this.exitCode = what.exitCode;
    this.timedOut = what.timedOut;
    this.stderr = what.stderr;
  }
}

/** The words of whatever was thrown, with those of its causes. */
export function errorText(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? "" : errorText(error.cause);
  return cause === "" || error.message.includes(cause) ? error.message : `${error.message}: ${cause}`;
}

/** The code of a system call's error, such as ENOENT. */
export function errorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}
