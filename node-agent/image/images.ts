/** Images on this node: fetched once, verified, kept as raw disks in the pools that need them. */
import { constants } from "node:fs";
import { mkdir, open, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { realClock, type Clock } from "../../kube/clock.ts";
import type { Logger } from "../../kube/logger.ts";
import { errorCode, errorText } from "../errors.ts";
import { paths as nodeDefaults, type NodePaths } from "../node.ts";
import { cloneFile, exists, fileSystemRoom, syncDirectory, syncFile } from "../pool/files.ts";
import type { Pools } from "../pool/index.ts";
import { KeyedLock } from "../pool/lock.ts";
import { formatSize, nodeReserve } from "../pool/size.ts";
import { addressCheck, type AddressRules } from "./address.ts";
import { parseChecksum, type Checksum } from "./checksum.ts";
import { NotAnImage, recognise, type ImageContent } from "./content.ts";
import { convertQcow2 } from "./convert.ts";
import { DEFAULT_LIMITS, discardPart, download, type DownloadLimits } from "./download.ts";
import { ImageError } from "./errors.ts";
import { Fetcher, showUrl, type Resolve } from "./fetch.ts";
import { prune } from "./prune.ts";
import { QCOW2_HEADER_BYTES } from "./qcow2.ts";
import { SharedTasks } from "./shared.ts";

export interface ImageRequest {
  url: string;
  /** `sha256:<hex>` or `sha512:<hex>`. */
  checksum: string;
  pool: string;
}

export interface ImageOnNode {
  /** A raw disk in the pool's images. */
  path: string;
  virtualSizeBytes: number;
}

export interface ImagesOptions {
  pools: Pools;
  log: Logger;
  paths?: NodePaths;
  /** Ranges that images are not fetched from, besides loopback, link-local and metadata: the cluster's service addresses. */
  deniedRanges?: readonly string[];
  /** Ranges that images may be fetched from although they are denied; never loopback. */
  allowedRanges?: readonly string[];
  /** A certificate authority that is trusted besides the usual ones, PEM. */
  ca?: string;
  /** Largest file and largest disk that is taken. Default: 1 TiB. */
  maxBytes?: number;
  /** Aborts when the agent ends: downloads under way are then kept, for its successor to go on with. */
  shutdown?: AbortSignal;
  clock?: Clock;
  /** For tests only. */
  test?: {
    abandonedMs?: number;
    allowLoopback?: boolean;
    resolve?: Resolve;
    limits?: Partial<DownloadLimits>;
    answerMs?: number;
  };
}

const TIB = 1024 ** 4;
/** A download that nobody waits for any more is kept for so long. */
const ABANDONED_MS = 15_000;
/** A download that nobody went on with for so long is deleted. */
const STALE_PART_MS = 24 * 3600_000;
const SLOWEST_BYTES_PER_MS = 10_000;

export class Images {
  readonly #pools: Pools;
  readonly #paths: NodePaths;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #options: ImagesOptions;
  readonly #limits: DownloadLimits;
  readonly #rules: AddressRules;
  readonly #tasks = new SharedTasks<ImageOnNode>();
  /** One at a time per checksum, so that a second pool finds what the first has fetched. */
  readonly #locks = new KeyedLock();
  /** Files that were what their checksum says and still no disk: fetching them again changes nothing. */
  readonly #refused = new Map<string, ImageError>();
  /** How large the disks in files are that were fetched before; asked before they are fetched again. */
  readonly #diskSizes = new Map<string, number>();
  readonly #swept = new Set<string>();

  constructor(options: ImagesOptions) {
    const { pools, log, paths = nodeDefaults, clock = realClock, test = {} } = options;
    this.#pools = pools;
    this.#log = log;
    this.#paths = paths;
    this.#clock = clock;
    this.#options = options;
    this.#limits = { ...DEFAULT_LIMITS, ...test.limits };
    this.#rules = {
      denied: options.deniedRanges ?? [],
      allowed: options.allowedRanges ?? [],
      allowLoopback: test.allowLoopback ?? false,
    };
    // A range that is none is told at the start, and not by the first image.
    addressCheck(this.#rules);
    pools.onPressure((pool, bytes) => this.prune(pool, bytes));
  }

  /**
   * The image in the pool, as a raw disk. Fetched at most once per node at a time, whoever waits; taken from another pool
   * where one has it. Throws ImageError (a UserError with `retryAfterMs`), or UserError with the pool's own reason. A
   * refusal leaves nothing on the node; a break leaves what was received, for the next call to go on with.
   */
  async ensure(request: ImageRequest, signal: AbortSignal): Promise<ImageOnNode> {
    const checksum = parseChecksum(request.checksum);
    const place = await this.#pools.place(request.pool);
    const path = join(place.images, `${checksum.hex}.raw`);
    const found = await this.#use(path);
    if (found) return found;
    const refused = this.#refused.get(checksum.hex);
    if (refused) throw refused;
    return this.#tasks.join(`${checksum.hex} ${request.pool}`, signal, (work) =>
      this.#locks.run(checksum.hex, () => this.#make(request, checksum, path, work)),
    );
  }

  /** Frees so many bytes in a pool by deleting images, those longest unused first; never one in use or used just now. */
  async prune(pool: string, bytes: number): Promise<void> {
    const place = this.#pools.get(pool);
    if (!place.ready) return;
    const making = this.#tasks.keys().map((key) => key.split(" ")[0] ?? "");
    const deleted = await prune({ directory: place.images, bytes, keep: new Set(making), now: this.#clock.now() });
    for (const image of deleted) this.#log.info({ pool, image }, "unused image deleted to make room");
  }

  /** An image that is there, marked as used now. */
  async #use(path: string): Promise<ImageOnNode | undefined> {
    try {
      const { size } = await stat(path);
      const now = new Date(this.#clock.now());
      await utimes(path, now, now);
      return { path, virtualSizeBytes: size };
    } catch (error) {
      if (errorCode(error) === "ENOENT") return undefined;
      throw error;
    }
  }

  async #make(request: ImageRequest, checksum: Checksum, path: string, signal: AbortSignal): Promise<ImageOnNode> {
    signal.throwIfAborted();
    await this.#sweep(request.pool);
    const found = await this.#use(path);
    if (found) return found;
    const copied = await this.#copyFromAnotherPool(request.pool, checksum, path, signal);
    if (copied) return copied;
    const diskSize = this.#diskSizes.get(checksum.hex);
    if (diskSize !== undefined) await this.#checkDisk(request, diskSize);
    const part = join(this.#paths.images, `${checksum.hex}.part`);
    await this.#sweepParts();
    const started = this.#clock.monotonic();
    try {
      await this.#fetch(request, checksum, part, signal);
      const made = await this.#import(request, checksum, part, path, signal);
      await discardPart(part);
      const seconds = Math.round((this.#clock.monotonic() - started) / 100) / 10;
      this.#log.info(
        { pool: request.pool, url: showUrl(request.url), disk: formatSize(made.virtualSizeBytes), seconds },
        "image ready",
      );
      return made;
    } catch (error) {
      if (!this.#worthKeeping(error, signal)) await this.#discard(part, checksum, signal);
      if (error instanceof ImageError)
        this.#log.warn({ pool: request.pool, reason: error.reason, error: error.message }, "no image");
      throw error;
    }
  }

  /** Deletes a download: at once after a refusal, and a while after the last who waited for it has left. */
  async #discard(part: string, checksum: Checksum, signal: AbortSignal): Promise<void> {
    if (!signal.aborted) return discardPart(part);
    // Whoever left may only have been interrupted, and be back in a moment.
    this.#clock.setTimeout(() => {
      const wanted = this.#tasks.keys().some((key) => key.startsWith(`${checksum.hex} `));
      if (wanted || this.#options.shutdown?.aborted) return;
      this.#locks
        .run(checksum.hex, () => discardPart(part))
        .catch((error: unknown) =>
          this.#log.warn({ part, error: errorText(error) }, "could not delete a download that nobody waits for"),
        );
    }, this.#options.test?.abandonedMs ?? ABANDONED_MS);
  }

  /** Whether what was received may serve a later call: after breaks and at the agent's end, not when nobody waits any more. */
  #worthKeeping(error: unknown, signal: AbortSignal): boolean {
    if (signal.aborted) return this.#options.shutdown?.aborted === true;
    return error instanceof ImageError ? error.passing || error.reason === "PoolFull" : true;
  }

  async #fetch(request: ImageRequest, checksum: Checksum, part: string, signal: AbortSignal): Promise<void> {
    await mkdir(this.#paths.images, { recursive: true, mode: 0o700 });
    const { ca, test = {} } = this.#options;
    const fetcher = new Fetcher({ rules: this.#rules, answerMs: test.answerMs ?? 30_000, ca, resolve: test.resolve });
    try {
      await download({
        url: request.url,
        checksum,
        part,
        fetcher,
        clock: this.#clock,
        log: this.#log,
        limits: this.#limits,
        checkSize: (bytes, have) => this.#checkSize(request, bytes, have),
        signal,
      });
    } finally {
      fetcher.close();
    }
  }

  /** Whether a file of so many bytes, some of them here already, has room on the node and in its pool. */
  async #checkSize(request: ImageRequest, bytes: number, have: number): Promise<void> {
    const pool = await fileSystemRoom(this.#paths.pool(request.pool));
    const largest = Math.min(pool.sizeBytes, this.#maxBytes);
    if (bytes > largest) {
      const message = `the file at ${showUrl(request.url)} has ${formatSize(bytes)}, and pool ${request.pool} takes at most ${formatSize(largest)}`;
      throw new ImageError("ImageTooLarge", `${message}; use a smaller image, or a larger pool`);
    }
    const node = await fileSystemRoom(this.#paths.images);
    const reserve = nodeReserve(node.sizeBytes);
    if (bytes - have + reserve <= node.freeBytes) return;
    const message = `${formatSize(node.freeBytes)} is free in ${this.#paths.images}, and the image needs ${formatSize(bytes - have)} there and ${formatSize(reserve)} left over for the node`;
    throw new ImageError("NodeDiskFull", `${message}; free space on the node`);
  }

  /** Whether a disk of so many bytes can be in the pool at all. */
  async #checkDisk(request: ImageRequest, virtualSizeBytes: number): Promise<void> {
    const pool = await fileSystemRoom(this.#paths.pool(request.pool));
    const largest = Math.min(pool.sizeBytes, this.#maxBytes);
    if (virtualSizeBytes <= largest) return;
    const message = `the image at ${showUrl(request.url)} is a disk of ${formatSize(virtualSizeBytes)}, and pool ${request.pool} takes at most ${formatSize(largest)}`;
    throw new ImageError("ImageTooLarge", `${message}; use a smaller image, or a larger pool`);
  }

  async #import(
    request: ImageRequest,
    checksum: Checksum,
    part: string,
    path: string,
    signal: AbortSignal,
  ): Promise<ImageOnNode> {
    const { content, fileBytes } = await this.#recognise(request, checksum, part);
    await this.#checkDisk(request, content.virtualSizeBytes);
    await this.#pools.room(request.pool, Math.min(fileBytes, content.virtualSizeBytes));
    await this.#fill(path, request.pool, signal, async (target) => {
      if (content.format === "raw") {
        await rm(target, { force: true });
        await cloneFile(part, target, { deadlineMs: 60_000 + Math.ceil(fileBytes / SLOWEST_BYTES_PER_MS), signal });
      } else {
        await convertQcow2({ source: part, target, virtualSizeBytes: content.virtualSizeBytes, signal });
      }
    });
    return { path, virtualSizeBytes: content.virtualSizeBytes };
  }

  async #recognise(
    request: ImageRequest,
    checksum: Checksum,
    part: string,
  ): Promise<{ content: ImageContent; fileBytes: number }> {
    const handle = await open(part, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      const { size } = await handle.stat();
      const { buffer, bytesRead } = await handle.read(
        Buffer.alloc(Math.min(size, QCOW2_HEADER_BYTES)),
        0,
        Math.min(size, QCOW2_HEADER_BYTES),
        0,
      );
      const content = recognise(buffer.subarray(0, bytesRead), size);
      this.#diskSizes.set(checksum.hex, content.virtualSizeBytes);
      return { content, fileBytes: size };
    } catch (error) {
      if (!(error instanceof NotAnImage)) throw error;
      const message = `the file at ${showUrl(request.url)} cannot be used as a disk: it ${error.message}`;
      const refusal = new ImageError("NotAnImage", message, { cause: error });
      this.#refused.set(checksum.hex, refusal);
      throw refusal;
    } finally {
      await handle.close();
    }
  }

  async #copyFromAnotherPool(
    pool: string,
    checksum: Checksum,
    path: string,
    signal: AbortSignal,
  ): Promise<ImageOnNode | undefined> {
    for (const { name } of this.#pools.usage()) {
      const place = this.#pools.get(name);
      if (name === pool || !place.ready) continue;
      const source = await this.#use(join(place.images, `${checksum.hex}.raw`));
      if (!source) continue;
      const { blocks } = await stat(source.path);
      await this.#pools.room(pool, blocks * 512);
      const deadlineMs = 60_000 + Math.ceil(source.virtualSizeBytes / SLOWEST_BYTES_PER_MS);
      await this.#fill(path, pool, signal, async (target) => {
        await rm(target, { force: true });
        await cloneFile(source.path, target, { deadlineMs, signal });
      });
      this.#log.info({ pool, from: name }, "image taken from another pool");
      return { path, virtualSizeBytes: source.virtualSizeBytes };
    }
    return undefined;
  }

  /** Makes a file by filling another and renaming it: it is there whole, or not at all. */
  async #fill(path: string, pool: string, signal: AbortSignal, fill: (target: string) => Promise<void>): Promise<void> {
    const target = `${path}${(await this.#pools.place(pool)).scratch}.new`;
    await rm(target, { force: true });
    try {
      await (await open(target, "wx", 0o600)).close();
      await fill(target);
      await syncFile(target);
      await rename(target, path);
    } catch (error) {
      await rm(target, { force: true });
      signal.throwIfAborted();
      if (error instanceof ImageError) throw error;
      if (errorCode(error) === "ENOSPC" || errorText(error).includes("No space left")) {
        throw new ImageError(
          "PoolFull",
          `pool ${pool} became full while the image was written; delete instances, or let it grow`,
          { cause: error },
        );
      }
      throw new ImageError("ImportFailed", `the image could not be written to pool ${pool}: ${errorText(error)}`, {
        cause: error,
      });
    }
    await syncDirectory(join(path, ".."));
  }

  /** Once per pool and agent: deletes what an agent that was killed left half-done. */
  async #sweep(pool: string): Promise<void> {
    const { images: directory, scratch } = await this.#pools.place(pool);
    if (this.#swept.has(directory)) return;
    this.#swept.add(directory);
    const half = `${scratch}.new`;
    const making = new Set(this.#tasks.keys().map((key) => `${key.split(" ")[0]}.raw${half}`));
    for (const name of await readdir(directory)) {
      if (name.endsWith(half) && !making.has(name)) await rm(join(directory, name), { force: true });
    }
  }

  /** Deletes downloads that nobody goes on with. */
  async #sweepParts(): Promise<void> {
    if (!(await exists(this.#paths.images))) return;
    for (const name of await readdir(this.#paths.images)) {
      const file = join(this.#paths.images, name);
      const age = this.#clock.now() - (await stat(file)).mtimeMs;
      if (age > STALE_PART_MS) await rm(file, { force: true });
    }
  }

  get #maxBytes(): number {
    return this.#options.maxBytes ?? TIB;
  }
}
