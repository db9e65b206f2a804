/** What can go wrong between us and the API server. */

/** The API server refused; message and reason are its own words. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  /** HTTP status. */
  readonly code: number;
  /** Kubernetes' reason, such as NotFound, Conflict, AlreadyExists, Invalid, Forbidden, Expired. */
  readonly reason: string;
  /** When the server asked to wait before the next try. */
  readonly retryAfterMs: number | undefined;

  constructor(code: number, reason: string, message: string, options?: { retryAfterMs?: number | undefined; cause?: unknown }) {
    super(message, options?.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.reason = reason;
    this.retryAfterMs = options?.retryAfterMs;
  }

  /** Somebody wrote in between (or, on create, it exists already: see reason AlreadyExists). */
  get isConflict(): boolean {
    return this.code === 409;
  }
  get isNotFound(): boolean {
    return this.code === 404;
  }
  get isForbidden(): boolean {
    return this.code === 403;
  }
  /** The resourceVersion asked for is no longer kept: list again. */
  get isExpired(): boolean {
    return this.code === 410 || this.reason === "Expired" || this.reason === "Gone";
  }
}

/** No answer could be had: refused connection, broken stream, deadline. Passes by itself; `cause` tells which. */
export class TransportError extends Error {
  override readonly name = "TransportError";
}

/** A reconcile that throws this is not tried again until its object changes. */
export class TerminalError extends Error {
  override readonly name = "TerminalError";
}

interface StatusBody {
  message?: string;
  reason?: string;
  code?: number;
  details?: { retryAfterSeconds?: number };
}

/** Makes an ApiError of a refusal's body, which is a Status object unless something between us and the server answered. */
export const apiErrorFrom = (asked: string, status: number, body: string, retryAfter?: string): ApiError => {
  let parsed: StatusBody = {};
  try {
    const value: unknown = JSON.parse(body);
    if (typeof value === "object" && value !== null) parsed = value;
  } catch {
    // Not from the API server itself: its text is all there is to show.
    parsed = { message: body.slice(0, 300).trim() };
  }
  const seconds = parsed.details?.retryAfterSeconds ?? (retryAfter === undefined ? undefined : Number(retryAfter));
  const words = parsed.message ?? "";
  return new ApiError(
    status,
    parsed.reason ?? `HTTP${status}`,
    words === "" ? `${asked}: HTTP ${status}` : `${asked}: ${words}`,
    {
      retryAfterMs: seconds !== undefined && Number.isFinite(seconds) ? seconds * 1000 : undefined,
    },
  );
};

/** One line for logs and conditions: the message with those of its causes. */
export const errorText = (error: unknown): string => {
  const parts: string[] = [];
  let current: unknown = error;
  while (current !== undefined && current !== null && parts.length < 5) {
    const text = current instanceof Error ? current.message : typeof current === "string" ? current : JSON.stringify(current);
    if (text !== "" && !parts.some((part) => part.includes(text))) parts.push(text);
    current = current instanceof Error ? current.cause : undefined;
  }
  return parts.join(": ");
};
