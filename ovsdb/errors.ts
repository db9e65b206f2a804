/** What can go wrong between us and an OVSDB server. */

/** The server refused a request or one operation of a transaction; its own words are kept. */
export class OvsdbError extends Error {
  override name = "OvsdbError";
  /** The server's error code, such as "constraint violation" or "timed out" (a wait that did not hold). */
  readonly error: string;
  /** The server's explanation, empty if it gave none. */
  readonly details: string;
  /** Index of the operation that failed; undefined when the commit or the request as a whole was refused. */
  readonly index: number | undefined;

  constructor(what: string, reply: { error: string; details?: string | undefined }, index?: number) {
    super(`${what}: ${reply.error}${reply.details ? ` (${reply.details})` : ""}`);
    this.error = reply.error;
    this.details = reply.details ?? "";
    this.index = index;
  }
}

/** There is no connection, or it broke before the reply. */
export class DisconnectedError extends Error {
  override name = "DisconnectedError";
  /** True when the request had been sent: whether the server acted on it is not known. */
  readonly maybeApplied: boolean;

  constructor(message: string, opts: { maybeApplied: boolean; cause?: unknown }) {
    super(message, { cause: opts.cause });
    this.maybeApplied = opts.maybeApplied;
  }
}

/** No reply within the deadline; the request was cancelled, but may have been acted on. */
export class OvsdbTimeoutError extends Error {
  override name = "OvsdbTimeoutError";
}

/** Text of anything thrown, for a log line or a condition. */
export const errorText = (error: unknown): string => (error instanceof Error ? error.message : String(error));
