/** Downloads a file to disk and verifies it on the way; goes on after a break, in this process or the next. */
import type { Hash } from "node:crypto";
import { constants } from "node:fs";
import { open, readFile, rm, type FileHandle } from "node:fs/promises";
import { z } from "zod";
import { backoffMs } from "../../kube/backoff.ts";
import { sleep, type Clock } from "../../kube/clock.ts";
import type { Logger } from "../../kube/logger.ts";
import { errorCode, errorText } from "../errors.ts";
import { writeAtomic } from "../pool/files.ts";
import type { Checksum } from "./checksum.ts";
import { ImageError } from "./errors.ts";
import { showUrl, statusError, type Answer, type Fetcher } from "./fetch.ts";

export interface DownloadOptions {
  url: string;
  checksum: Checksum;
  /** Where the file grows; what is known of it lies beside it. */
  part: string;
  fetcher: Fetcher;
  clock: Clock;
  log: Logger;
  limits: DownloadLimits;
  /** Throws ImageError when a file of so many bytes has no place, `have` of which are on disk already. */
  checkSize: (bytes: number, have: number) => Promise<void>;
  signal: AbortSignal;
}

export interface DownloadLimits {
  /** A transfer that brings less than `stallBytes` within this is broken off and begun again where it ended. */
  stallMs: number;
  stallBytes: number;
  /** Tries in a row that bring nothing. */
  tries: number;
  /** First and longest wait between tries. */
  retryMs: number;
  retryCapMs: number;
  /** For the whole download. */
  totalMs: number;
}

export const DEFAULT_LIMITS: DownloadLimits = {
  stallMs: 30_000,
  stallBytes: 64 * 1024,
  tries: 4,
  retryMs: 500,
  retryCapMs: 10_000,
  totalMs: 6 * 3600_000,
};

const partNote = z.object({ url: z.string(), validator: z.string().optional(), totalBytes: z.number().optional() });
type PartNote = z.infer<typeof partNote>;

const noteOf = (part: string): string => `${part}.json`;

/** Deletes a download that was not finished. */
export async function discardPart(part: string): Promise<void> {
  for (const file of [part, noteOf(part), `${noteOf(part)}.new`]) await rm(file, { force: true });
}

/** Bytes so far, with their hash; what is hashed is what is on disk. */
interface Progress {
  handle: FileHandle;
  hash: Hash;
  bytes: number;
  /** Whether it came over more than one connection. */
  resumed: boolean;
  /** Monotonic time at which the whole download is given up. */
  deadline: number;
}

/**
 * Leaves the whole file, verified and synced, at `part`. After a break that may pass it tries again; what was received
 * before is kept where the server can prove that the file is still the same. When it throws, `part` is kept only after
 * breaks (another call resumes) and deleted after refusals. Throws ImageError, or the signal's reason.
 */
export async function download(options: DownloadOptions): Promise<void> {
  const { limits, clock, signal } = options;
  let progress: Progress | undefined;
  let failures = 0;
  // Only what was never reached before is progress: a server that makes us begin anew again and again brings nothing.
  let furthest = 0;
  try {
    progress = await begin(options);
    for (;;) {
      try {
        await transfer(progress, options);
        if (await verify(progress, options)) return;
        continue;
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof ImageError) || !error.passing) throw error;
        failures = progress.bytes > furthest ? 1 : failures + 1;
        furthest = Math.max(furthest, progress.bytes);
        if (failures >= limits.tries || clock.monotonic() >= progress.deadline) throw error;
        const wait = Math.max(backoffMs(failures, { baseMs: limits.retryMs, capMs: limits.retryCapMs }), asked(error, limits));
        options.log.info(
          { url: showUrl(options.url), error: error.message, bytes: progress.bytes, waitMs: Math.round(wait) },
          "download broke off",
        );
        await sleep(clock, wait, signal);
        signal.throwIfAborted();
      }
    }
  } catch (error) {
    if (error instanceof ImageError && !error.passing) await discardPart(options.part);
    throw error;
  } finally {
    await progress?.handle.close();
  }
}

/** A wait that the server asked for, where it is short enough to be waited for here. */
const asked = (error: ImageError, limits: DownloadLimits): number =>
  error.retryAfterMs <= limits.retryCapMs ? error.retryAfterMs : 0;

async function begin(options: DownloadOptions): Promise<Progress> {
  const handle = await open(options.part, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  const progress: Progress = {
    handle,
    hash: options.checksum.hash(),
    bytes: 0,
    resumed: false,
    deadline: options.clock.monotonic() + options.limits.totalMs,
  };
  const { size } = await handle.stat();
  if (size === 0) return progress;
  for await (const chunk of handle.createReadStream({
    start: 0,
    autoClose: false,
    highWaterMark: 1024 ** 2,
    signal: options.signal,
  })) {
    progress.hash.update(chunk as Buffer);
    progress.bytes += (chunk as Buffer).length;
  }
  progress.resumed = true;
  return progress;
}

async function restart(progress: Progress, options: DownloadOptions): Promise<void> {
  await progress.handle.truncate(0);
  progress.hash = options.checksum.hash();
  progress.bytes = 0;
  progress.resumed = false;
}

/** One connection: from where the file ends to the end, or to whatever breaks it. */
async function transfer(progress: Progress, options: DownloadOptions): Promise<void> {
  const { url, fetcher, part } = options;
  const note = await readPartNote(part);
  const validator = note?.url === url ? note.validator : undefined;
  if (progress.bytes > 0 && validator === undefined) await restart(progress, options);
  if (progress.bytes > 0 && progress.bytes === note?.totalBytes) return;
  const headers: Record<string, string> = {};
  if (progress.bytes > 0 && validator !== undefined)
    Object.assign(headers, { range: `bytes=${progress.bytes}-`, "if-range": validator });
  const answer = await fetcher.get(url, headers, options.signal);
  try {
    await receive(answer, progress, options);
  } finally {
    answer.body.destroy();
  }
}

async function receive(answer: Answer, progress: Progress, options: DownloadOptions): Promise<void> {
  const { url, part } = options;
  if (answer.status === 416) {
    await restart(progress, options);
    throw new ImageError("ImageUnreachable", `${showUrl(url)} has another file than before`, { passing: true });
  }
  if (answer.status !== 200 && answer.status !== 206) throw statusError(url, answer);
  const encoding = answer.header("content-encoding") ?? "identity";
  if (encoding !== "identity") {
    throw new ImageError(
      "ImageUnreachable",
      `${showUrl(url)} answers in content-encoding ${encoding.slice(0, 40)}, which was not asked for; serve the file as it is`,
    );
  }
  const total = answer.status === 206 ? continuedTotal(answer, progress.bytes) : lengthOf(answer);
  if (answer.status === 206 && total === undefined) {
    await restart(progress, options);
    throw new ImageError("ImageUnreachable", `${showUrl(url)} answers another part of the file than was asked for`, {
      passing: true,
    });
  }
  if (answer.status === 200 && progress.bytes > 0) await restart(progress, options);
  if (total !== undefined) await options.checkSize(total, progress.bytes);
  if (answer.status === 206) progress.resumed = true;
  const validator = validatorOf(answer);
  await writeAtomic(
    noteOf(part),
    JSON.stringify({
      url,
      ...(validator === undefined ? {} : { validator }),
      ...(total === undefined ? {} : { totalBytes: total }),
    } satisfies PartNote),
  );
  await copyBody(answer, progress, options, total);
}

async function copyBody(answer: Answer, progress: Progress, options: DownloadOptions, total: number | undefined): Promise<void> {
  const { url, limits, clock, signal } = options;
  const guard = watchStall(answer, progress, options);
  let checked = progress.bytes;
  try {
    for await (const chunk of answer.body as AsyncIterable<Buffer>) {
      if (total !== undefined && progress.bytes + chunk.length > total) throw new Error("it sent more than it announced");
      // Without an announced size the room is looked at as it is filled.
      if (total === undefined && progress.bytes + chunk.length - checked > 64 * 1024 ** 2) {
        checked = progress.bytes;
        await options.checkSize(progress.bytes + 64 * 1024 ** 2, progress.bytes);
      }
      await writeAll(progress.handle, chunk, progress.bytes);
      progress.hash.update(chunk);
      progress.bytes += chunk.length;
      release(chunk);
    }
    if (total !== undefined && progress.bytes < total) throw new Error("the connection ended early");
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof ImageError) throw error;
    if (errorCode(error) === "ENOSPC")
      throw new ImageError("NodeDiskFull", "the node's file system for downloads is full", { cause: error });
    const how = guard.stalled
      ? `it sent less than ${limits.stallBytes / 1024} KiB within ${limits.stallMs / 1000} s`
      : errorCode(error) === "ECONNRESET"
        ? "the connection was closed"
        : errorText(error);
    const done = total === undefined ? `${progress.bytes} bytes` : `${progress.bytes} of ${total} bytes`;
    throw new ImageError("ImageUnreachable", `${showUrl(url)} broke off after ${done}: ${how}`, { cause: error, passing: true });
  } finally {
    clock.clearTimeout(guard.timer());
  }
}

/** Breaks the body off when too little comes: silence, and a trickle that would hold the download for days. */
function watchStall(answer: Answer, progress: Progress, { clock, limits }: DownloadOptions) {
  const state = { stalled: false };
  let last = progress.bytes;
  let timer = clock.setTimeout(check, limits.stallMs);
  function check(): void {
    if (progress.bytes - last < limits.stallBytes || clock.monotonic() >= progress.deadline) {
      state.stalled = true;
      answer.body.destroy(new Error("stalled"));
      return;
    }
    last = progress.bytes;
    timer = clock.setTimeout(check, limits.stallMs);
  }
  return Object.assign(state, { timer: () => timer });
}

/** True when the file is what it should be; false when it is to be fetched once more, in one piece. */
async function verify(progress: Progress, options: DownloadOptions): Promise<boolean> {
  const actual = progress.hash.digest("hex");
  if (actual === options.checksum.hex) {
    await progress.handle.sync();
    return true;
  }
  if (progress.resumed) {
    options.log.info({ url: showUrl(options.url) }, "a resumed download does not match its checksum: once more from the start");
    await restart(progress, options);
    await rm(noteOf(options.part), { force: true });
    return false;
  }
  const { algorithm, hex } = options.checksum;
  throw new ImageError(
    "ChecksumMismatch",
    `the file at ${showUrl(options.url)} (${progress.bytes} bytes) has ${algorithm}:${actual} and not ${algorithm}:${hex}; correct image.checksum, or the file`,
  );
}

/** Gives a block's memory back now: to the collector its handle is small, and it lets tens of MiB wait behind such. */
function release({ buffer, byteLength }: Buffer): void {
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0);
}

async function writeAll(handle: FileHandle, chunk: Buffer, position: number): Promise<void> {
  let done = 0;
  while (done < chunk.length) {
    const { bytesWritten } = await handle.write(chunk, done, chunk.length - done, position + done);
    done += bytesWritten;
  }
}

function lengthOf(answer: Answer): number | undefined {
  const text = answer.header("content-length");
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

/** The whole file's length, when the answer goes on exactly where we are. */
function continuedTotal(answer: Answer, from: number): number | undefined {
  const match = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(answer.header("content-range") ?? "");
  if (!match) return undefined;
  const [first, last, total] = match.slice(1).map(Number);
  return first === from && total !== undefined && last === total - 1 ? total : undefined;
}

/** What proves that a file is still the same, byte for byte: a strong ETag, else its date. */
function validatorOf(answer: Answer): string | undefined {
  const etag = answer.header("etag");
  if (etag !== undefined && /^"[^"]{1,200}"$/.test(etag)) return etag;
  return etag === undefined ? answer.header("last-modified")?.slice(0, 64) : undefined;
}

async function readPartNote(part: string): Promise<PartNote | undefined> {
  try {
    return partNote.parse(JSON.parse(await readFile(noteOf(part), "utf8")));
  } catch (error) {
    // No note, or none that can be read: the download begins anew.
    if (errorCode(error) === "ENOENT" || error instanceof SyntaxError || error instanceof z.ZodError) return undefined;
    throw error;
  }
}
