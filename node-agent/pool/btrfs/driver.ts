/** Loop-backed btrfs pools: what is there, and each step of their plans. */
import { link, lstat, mkdir, open, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import type { Logger } from "../../../kube/logger.ts";
import { parseBytes } from "../../../crds/quantity.ts";
import { errorCode, errorText, UserError } from "../../errors.ts";
import { nodePid, onNode, type NodePaths } from "../../node.ts";
import { performStep, type PoolDriver, type PoolTarget, type StepActions } from "../driver.ts";
import {
  exists,
  fileSystemRoom,
  makePoolDirectories,
  POOL_MODE,
  removeEmptyDirectory,
  syncDirectory,
  syncFile,
} from "../files.ts";
import { here } from "../here.ts";
import { attachLoop, detachLoop, loopsOf, refreshLoop, type LoopSeen } from "../losetup.ts";
import { mountAt, notVisible, unmountPool } from "../mounts.ts";
import { readNote, removeNote, writeNote } from "../notes.ts";
import type { PoolStep, Undo } from "../steps.ts";
import { planPool, planPoolRemoval, type PoolSeen } from "./plan.ts";
import { readSuperblock } from "./superblock.ts";

export interface BtrfsOptions {
  paths: NodePaths;
  log: Logger;
  /** True: a pool's file takes its whole size from the node at once. False: it is sparse and grows as it is written. */
  reserve: boolean;
}

const DETACH_WAITS = 20;
const DETACH_WAIT_MS = 100;

const labelOf = (pool: string): string => `drover-${pool}`;

export class BtrfsDriver implements PoolDriver {
  readonly #paths: NodePaths;
  readonly #log: Logger;
  readonly #reserve: boolean;

  constructor(options: BtrfsOptions) {
    this.#paths = options.paths;
    this.#log = options.log;
    this.#reserve = options.reserve;
  }

  async plan(pool: PoolTarget): Promise<PoolStep[]> {
    const size = pool.spec.source.loop?.size;
    const want = {
      name: pool.name,
      sizeBytes: size === undefined ? undefined : parseBytes(size),
      file: this.#paths.loop(pool.name),
    };
    return planPool(await this.observe(pool.name), want);
  }

  async planRemoval(pool: string): Promise<PoolStep[]> {
    return planPoolRemoval(await this.observe(pool));
  }

  /** What is on the node, from the node itself. */
  async observe(pool: string): Promise<PoolSeen> {
    const file = this.#paths.loop(pool);
    const place = this.#paths.pool(pool);
    await mkdir(this.#paths.loops, { recursive: true, mode: 0o700 });
    await mkdir(this.#paths.pools, { recursive: true, mode: POOL_MODE });
    const [fileSeen, leftover, note, mount, own, room] = await Promise.all([
      seeFile(file, pool),
      exists(temporary(file)),
      readNote(this.#paths, pool),
      mountAt(place, nodePid()),
      mountAt(place, "self"),
      fileSystemRoom(this.#paths.loops),
    ]);
    const loops = fileSeen ? await loopsOf(file) : [];
    const loop = loops.find((one) => one.device === mount?.source) ?? loops[0] ?? null;
    const visible = mount !== undefined && own?.source === mount.source;
    const mounted = visible && loop?.device === mount.source;
    return {
      file: fileSeen && {
        sizeBytes: fileSeen.sizeBytes,
        ours: fileSeen.fsid !== undefined,
        fileSystemBytes: mounted ? (await fileSystemRoom(place)).sizeBytes : fileSeen.fileSystemBytes,
      },
      leftover,
      noted: noted(note?.id, fileSeen?.fsid),
      loop,
      mount: mount ? { device: mount.source, visible, readOnly: mount.readOnly } : null,
      directories: visible && (await exists(join(place, "volumes"))) && (await exists(join(place, "images"))),
      room,
    };
  }

  async perform(pool: string, step: PoolStep, signal: AbortSignal): Promise<Undo | undefined> {
    const file = this.#paths.loop(pool);
    const place = this.#paths.pool(pool);
    const actions: StepActions = {
      "discard-leftover": () => rm(temporary(file), { force: true }),
      "create-file": ({ sizeBytes }) => this.#create(temporary(file), sizeBytes, signal),
      "make-filesystem": () => makeFilesystem(temporary(file), labelOf(pool), signal),
      "publish-file": () => this.#publish(file),
      note: () => this.#note(pool, file),
      "extend-file": (extend) => this.#extend(pool, file, extend, signal),
      attach: () => this.#attach(file, signal),
      "refresh-loop": async () => refreshLoop((await theLoop(file)).device),
      mount: async () => this.#mount(pool, await theLoop(file), place, signal),
      autoclear: async () => detachLoop((await theLoop(file)).device),
      "grow-filesystem": () => growFilesystem(place, signal),
      "make-directories": () => makePoolDirectories(place),
      unmount: () => unmountPool(pool, place),
      detach: () => this.#detach(pool, file),
      delete: () => this.#delete(pool, file, place),
    };
    return performStep(actions, step);
  }

  async #create(file: string, sizeBytes: number, signal: AbortSignal): Promise<Undo> {
    const handle = await open(file, "wx", 0o600);
    await handle.close();
    const undo = (): Promise<void> => rm(file, { force: true });
    try {
      await this.#allocate(file, sizeBytes, signal);
    } catch (error) {
      await undo();
      throw error;
    }
    return undo;
  }

  /** Makes a file this long, with or without taking the space; what lies in it stays. */
  async #allocate(file: string, sizeBytes: number, signal: AbortSignal): Promise<void> {
    if (this.#reserve) {
      try {
        await here("fallocate", ["--length", String(sizeBytes), file], { deadlineMs: 120_000, signal });
        return;
      } catch (error) {
        if (!errorText(error).includes("not supported")) throw error;
        this.#log.warn({ file }, "the node's file system cannot reserve space: the pool's file takes it as it is written");
      }
    }
    const handle = await open(file, "r+");
    try {
      await handle.truncate(sizeBytes);
    } finally {
      await handle.close();
    }
  }

  async #publish(file: string): Promise<Undo> {
    await syncFile(temporary(file));
    // link, not rename: a file that appeared meanwhile is not replaced.
    await link(temporary(file), file);
    await rm(temporary(file));
    await syncDirectory(this.#paths.loops);
    return async () => {
      await rm(file, { force: true });
      await syncDirectory(this.#paths.loops);
    };
  }

  async #note(pool: string, file: string): Promise<Undo> {
    const superblock = await readSuperblock(file);
    if (!superblock) throw new Error(`${file} holds no btrfs`);
    await writeNote(this.#paths, pool, { driver: "btrfs", id: superblock.fsid });
    return () => removeNote(this.#paths, pool);
  }

  async #extend(
    pool: string,
    file: string,
    step: Extract<PoolStep, { step: "extend-file" }>,
    signal: AbortSignal,
  ): Promise<void> {
    try {
      await this.#allocate(file, step.toBytes, signal);
      await syncFile(file);
    } catch (error) {
      // Only what no loop knows of yet can be cut off again.
      const known = Math.max(step.fromBytes, ...(await loopsOf(file)).map((loop) => loop.sizeBytes));
      const handle = await open(file, "r+");
      try {
        if ((await handle.stat()).size > known) await handle.truncate(known);
      } finally {
        await handle.close();
      }
      throw new Error(`could not extend the file of pool ${pool}: ${errorText(error)}`, { cause: error });
    }
  }

  async #attach(file: string, signal: AbortSignal): Promise<Undo | undefined> {
    const before = await loopsOf(file);
    const device = await attachLoop(file, signal);
    if (before.length > 0) return undefined;
    return async () => {
      if ((await loopsOf(file)).some((loop) => loop.device === device)) await detachLoop(device);
    };
  }

  async #mount(pool: string, loop: LoopSeen, place: string, signal: AbortSignal): Promise<Undo> {
    await mkdir(place, { recursive: true, mode: POOL_MODE });
    // A discard would give reserved space back to the node; without reservation that is what one wants.
    const discard = this.#reserve ? "nodiscard" : "discard=async";
    const options = `noatime,nosuid,nodev,noexec,${discard}`;
    await onNode("mount", ["-t", "btrfs", "-o", options, loop.device, place], { deadlineMs: 120_000, signal });
    const undo = (): Promise<void> => unmountPool(pool, place);
    if ((await mountAt(place, "self"))?.source !== loop.device) {
      await undo();
      throw notVisible(pool);
    }
    return undo;
  }

  async #detach(pool: string, file: string): Promise<void> {
    for (const { device } of await loopsOf(file)) await detachLoop(device);
    // A container that is being started holds copies of all mounts for a moment, and nothing tells when it has let go.
    for (let waits = 0; waits < DETACH_WAITS; waits += 1) {
      if ((await loopsOf(file)).length === 0) return;
      await setTimeout(DETACH_WAIT_MS);
    }
    const [held] = await loopsOf(file);
    if (!held) return;
    const who = `${held.device}, the loop device of pool ${pool}, is still held by a process with a mount namespace of its own`;
    throw new UserError("PoolBusy", `${who}; it is freed when that process ends`);
  }

  async #delete(pool: string, file: string, place: string): Promise<void> {
    await rm(temporary(file), { force: true });
    const seen = await seeFile(file, pool);
    const note = await readNote(this.#paths, pool);
    if (seen?.fsid !== undefined && (note === undefined || note.id === seen.fsid)) await rm(file, { force: true });
    await syncDirectory(this.#paths.loops);
    // The note goes last: as long as it is there, the next run knows that there is something to take down.
    await removeNote(this.#paths, pool);
    await removeEmptyDirectory(place);
  }
}

const temporary = (file: string): string => `${file}.new`;

function noted(note: string | undefined, fsid: string | undefined): PoolSeen["noted"] {
  if (note === undefined) return "nothing";
  return fsid === undefined || note === fsid ? "same" : "other";
}

/** The backing file, and whose file system it holds; `fsid` only when it is this pool's. */
async function seeFile(
  file: string,
  pool: string,
): Promise<{ sizeBytes: number; fsid?: string; fileSystemBytes: number } | null> {
  let stat;
  try {
    stat = await lstat(file);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return null;
    throw error;
  }
  const superblock = stat.isFile() ? await readSuperblock(file) : undefined;
  if (superblock?.label !== labelOf(pool)) return { sizeBytes: stat.size, fileSystemBytes: 0 };
  return { sizeBytes: stat.size, fsid: superblock.fsid, fileSystemBytes: superblock.totalBytes };
}

/** On the file, before it has its name and before there is a device: what has the name is a whole file system. */
async function makeFilesystem(file: string, label: string, signal: AbortSignal): Promise<void> {
  await here("mkfs.btrfs", ["--quiet", "--nodiscard", "--label", label, file], { deadlineMs: 60_000, signal });
}

async function growFilesystem(place: string, signal: AbortSignal): Promise<void> {
  await here("btrfs", ["filesystem", "resize", "max", place], { deadlineMs: 60_000, signal });
}

async function theLoop(file: string): Promise<LoopSeen> {
  const [loop] = await loopsOf(file);
  if (!loop) throw new Error(`${file} has lost its loop device`);
  return loop;
}
