/** What can be wrong with an image: a reason, a sentence, and when it is worth trying again. */
import { UserError } from "../errors.ts";

const SECOND = 1000;
const MINUTE = 60 * SECOND;

/** Reasons, and how long to wait before the next try: long where only a change by people helps and a try costs a download. */
const RETRY_AFTER = {
  /** No answer, or one that says no. */
  ImageUnreachable: 15 * SECOND,
  /** An address that images must not come from. */
  ImageForbidden: 5 * MINUTE,
  ChecksumMismatch: 2 * MINUTE,
  NotAnImage: 5 * MINUTE,
  ImageTooLarge: 5 * MINUTE,
  PoolFull: 30 * SECOND,
  NodeDiskFull: 30 * SECOND,
  ImportFailed: MINUTE,
} as const;

export type ImageReason = keyof typeof RETRY_AFTER;

/** An image that cannot be had now. `passing`: it may go away by itself within seconds, as a connection that broke does. */
export class ImageError extends UserError {
  readonly retryAfterMs: number;
  readonly passing: boolean;

  constructor(reason: ImageReason, message: string, options: ErrorOptions & { passing?: boolean; retryAfterMs?: number } = {}) {
    super(reason, message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "ImageError";
    this.passing = options.passing ?? false;
    this.retryAfterMs = options.retryAfterMs ?? RETRY_AFTER[reason];
  }
}
