/** The storage pools of this node. */
import { createHash } from "node:crypto";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { HostPool } from "../../crds/host.ts";
import type { StoragePool } from "../../crds/pool.ts";
import type { Logger } from "../../kube/logger.ts";
import { CommandError, errorCode, errorText, UserError } from "../errors.ts";
import { nodePid, paths as nodeDefaults, type NodePaths } from "../node.ts";
import type { NotReady } from "../types.ts";
import { BtrfsDriver } from "./btrfs/driver.ts";
import { DirDriver } from "./dir/driver.ts";
import { othersUse } from "./dir/shared.ts";
import type { PoolDriver, PoolTarget } from "./driver.ts";
import { exists, fileSystemRoom } from "./files.ts";
import { KeyedLock } from "./lock.ts";
import { mountAt } from "./mounts.ts";
import { notedPools, readNote, type PoolNote } from "./notes.ts";
import { formatSize, poolHeadroom } from "./size.ts";
import { describeStep, runSteps, type PoolStep, type Refusal } from "./steps.ts";
import {
  deleteVolume,
  deleteVolumes,
  instancesWithVolumes,
  makeVolume,
  volumeBytes,
  type Volume,
  type VolumeRequest,
} from "./volumes.ts";

export interface PoolsOptions {
  nodeName: string;
  log: Logger;
  paths?: NodePaths;
  /**
   * Whether a loop pool's file takes its whole size from the node when it is made. Default: true, unless the environment
   * says DROVER_POOL_RESERVE=false, as where several nodes share one disk.
   */
  reserve?: boolean;
  /** Called after every step; a test ends the process in it. */
  checkpoint?: (step: PoolStep) => void;
}

/** A pool that disks can be taken from, and where it is. */
export interface PoolPlace {
  ready: true;
  volumes: string;
  images: string;
  /** Other nodes have the same directory. What this node half-makes there bears this in its name, and is nobody else's. */
  scratch: string;
}

/** Frees so many bytes in a pool by deleting what can be had again. */
export type Reclaim = (pool: string, bytes: number) => Promise<void>;

/** A pool as of the last look. */
interface Seen {
  host: HostPool;
  usable: boolean;
  /** Of a shared one: the bytes of its disks, by instance. */
  volumes: ReadonlyMap<string, number> | undefined;
}

const never = new AbortController().signal;

/** Makes, finds, grows and takes down the pools of a node, and the disks in them. Remembers nothing that the node does not tell. */
export class Pools {
  readonly #paths: NodePaths;
  readonly #node: string;
  readonly #log: Logger;
  readonly #drivers: Record<PoolNote["driver"], PoolDriver>;
  readonly #checkpoint: PoolsOptions["checkpoint"];
  readonly #locks = new KeyedLock();
  readonly #seen = new Map<string, Seen>();
  readonly #listeners = new Set<(pool: string) => void>();
  #reclaim: Reclaim | undefined;

  constructor(options: PoolsOptions) {
    const { paths = nodeDefaults, log, nodeName, reserve = process.env["DROVER_POOL_RESERVE"] !== "false" } = options;
    this.#paths = paths;
    this.#node = nodeName;
    this.#log = log;
    this.#checkpoint = options.checkpoint;
    this.#drivers = { btrfs: new BtrfsDriver({ paths, log, reserve }), dir: new DirDriver({ paths, nodeName }) };
  }

  /** Who is asked for room when a pool is full. */
  onPressure(reclaim: Reclaim): void {
    this.#reclaim = reclaim;
  }

  /** Tells the name of a pool that became another than it was: ready, gone, larger, taken down. */
  onChange(fn: (pool: string) => void): () => void {
    this.#listeners.add(fn);
    return () => void this.#listeners.delete(fn);
  }

  /**
   * Makes the pool what its spec says and tells how it is. May be repeated at any time; what a user can mend is an answer and
   * not an error. Throws only when aborted.
   */
  async ensure(
    pool: Pick<StoragePool, "spec" | "status"> & { metadata: { name: string } },
    signal: AbortSignal = never,
  ): Promise<HostPool> {
    const { name } = pool.metadata;
    return this.#locks.run(name, async () => {
      const refusal = await this.#bringUp({ name, spec: pool.spec, directory: pool.status?.directory }, signal);
      return this.#look(name, refusal);
    });
  }

  /** Takes the pool down and frees its bytes, unless disks of instances are in it. May be repeated. */
  async remove(name: string, signal: AbortSignal = never): Promise<"gone" | Omit<NotReady, "ready">> {
    return this.#locks.run(name, async () => {
      try {
        const refused = await this.#takeDown(name, signal);
        if (refused) return refused;
        if (this.#seen.delete(name)) this.#tell(name);
        return "gone" as const;
      } catch (error) {
        signal.throwIfAborted();
        return mendable(error);
      }
    });
  }

  /** Where the pool is, as of the last `ensure`. */
  get(name: string): PoolPlace | NotReady {
    const seen = this.#seen.get(name);
    if (!seen) return { ready: false, reason: "PoolUnknown", message: `pool ${name} is not on node ${this.#node} yet` };
    if (seen.usable) {
      const place = this.#paths.pool(name);
      const scratch = seen.volumes === undefined ? "" : `.${createHash("sha256").update(this.#node).digest("hex").slice(0, 12)}`;
      return { ready: true, volumes: join(place, "volumes"), images: join(place, "images"), scratch };
    }
    return {
      ready: false,
      reason: seen.host.reason ?? "PoolNotReady",
      message: seen.host.message ?? `pool ${name} is not ready`,
    };
  }

  /** The pools as of the last `ensure` or `measure`. */
  usage(): HostPool[] {
    return [...this.#seen.values()].map((seen) => seen.host).toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Looks again how full the pools are, and whether they are still there. */
  async measure(): Promise<HostPool[]> {
    for (const name of this.#seen.keys()) {
      await this.#locks.run(name, async () => {
        const seen = this.#seen.get(name);
        if (seen?.usable) await this.#look(name, keepRefusal(seen.host));
      });
    }
    return this.usage();
  }

  /** Names of the pools that this node has made and not taken down, whatever the API says. */
  list(): Promise<string[]> {
    return notedPools(this.#paths);
  }

  /**
   * Bytes of the disks of each instance in a pool that nodes share, whichever node they were made on, as of the last `ensure` or
   * `measure`; undefined for any other pool.
   */
  sharedVolumes(name: string): ReadonlyMap<string, number> | undefined {
    return this.#seen.get(name)?.volumes;
  }

  /** Bytes that images take in a pool; 0 when it is not mounted. */
  async imagesBytes(name: string): Promise<number> {
    const place = this.get(name);
    if (!place.ready) return 0;
    let total = 0;
    for (const entry of await readdir(place.images)) {
      try {
        total += (await stat(join(place.images, entry))).blocks * 512;
      } catch (error) {
        // Pruned meanwhile.
        if (errorCode(error) !== "ENOENT") throw error;
      }
    }
    return total;
  }

  /**
   * The disk of an instance, made when it is not there yet. Throws UserError: the pool's own reason, PoolFull, ImageTooLarge.
   * May be repeated; a disk that exists keeps its content.
   */
  async ensureVolume(request: VolumeRequest, signal?: AbortSignal): Promise<Volume> {
    const place = await this.place(request.pool);
    return this.#locks.run(`${request.pool}/${request.instanceUid}`, async () => {
      const there = await exists(join(place.volumes, request.instanceUid, `${request.disk}.raw`));
      if (!there && request.mustExist === true) throw missing(request);
      if (!there) await this.room(request.pool, 0);
      return makeVolume(place.volumes, request, signal);
    });
  }

  /**
   * Removes all disks of an instance from all pools of the node; nothing to do is no error. Throws UserError while a pool
   * that may hold some cannot be looked into.
   */
  async removeVolumes(instanceUid: string): Promise<void> {
    for (const name of await this.list()) {
      const place = this.#paths.pool(name);
      if (await this.#mounted(name)) {
        if (await deleteVolumes(join(place, "volumes"), instanceUid))
          this.#log.info({ pool: name, instanceUid }, "disks deleted");
      } else if (await this.#mayHoldDisks(name)) {
        const why = this.#seen.get(name)?.host.message ?? "it is not mounted";
        throw new UserError("PoolNotReady", `pool ${name} may hold disks of this instance, and cannot be looked into: ${why}`);
      }
    }
  }

  /** Removes one disk of an instance from one pool; nothing to do is no error. Throws UserError while the pool cannot be looked into. */
  async removeVolume(volume: { pool: string; instanceUid: string; disk: string }): Promise<void> {
    const { pool, instanceUid, disk } = volume;
    const [known, place] = [await this.list(), this.#paths.pool(pool)];
    if (!known.includes(pool)) return;
    if (!(await this.#mounted(pool))) {
      if (!(await this.#mayHoldDisks(pool))) return;
      const why = this.#seen.get(pool)?.host.message ?? "it is not mounted";
      throw new UserError(
        "PoolNotReady",
        `pool ${pool} may hold disk ${disk} of this instance, and cannot be looked into: ${why}`,
      );
    }
    await this.#locks.run(`${pool}/${instanceUid}`, () => deleteVolume(join(place, "volumes"), instanceUid, disk));
  }

  /** The place of a pool that is mounted at this moment. Throws UserError with the pool's reason. */
  async place(name: string): Promise<PoolPlace> {
    const place = this.get(name);
    if (!place.ready) throw new UserError(place.reason, place.message);
    if (await this.#mounted(name)) return place;
    throw new UserError("PoolGone", `pool ${name} is not mounted on node ${this.#node} any more`);
  }

  /**
   * Makes sure that so many bytes can be written to a pool and its headroom be left; asks for what can be had again first.
   * Throws UserError PoolFull with the figures.
   */
  async room(name: string, bytes: number): Promise<void> {
    const place = this.#paths.pool(name);
    let room = await fileSystemRoom(place);
    const needed = bytes + poolHeadroom(room.sizeBytes);
    if (room.freeBytes < needed && this.#reclaim) {
      await this.#reclaim(name, needed - room.freeBytes);
      room = await fileSystemRoom(place);
    }
    if (room.freeBytes < needed) throw new UserError("PoolFull", fullText(name, room, needed));
  }

  async #bringUp(pool: PoolTarget, signal: AbortSignal): Promise<Refusal | undefined> {
    try {
      const driver = this.#drivers[pool.spec.driver];
      const note = await readNote(this.#paths, pool.name);
      if (note && note.driver !== pool.spec.driver) {
        const message = `node ${this.#node} has a pool ${pool.name} with driver ${note.driver} already; use another name`;
        return { step: "refuse", reason: "ForeignData", message };
      }
      return await this.#run(pool.name, driver, await driver.plan(pool), signal);
    } catch (error) {
      signal.throwIfAborted();
      // Disks of a pool that is mounted can be used, whatever could not be done to it.
      return { step: "refuse", ...mendable(error), usable: true };
    }
  }

  async #run(name: string, driver: PoolDriver, steps: PoolStep[], signal: AbortSignal): Promise<Refusal | undefined> {
    const doing = steps.filter((step) => step.step !== "refuse").map(describeStep);
    if (doing.length > 0) this.#log.info({ pool: name, steps: doing }, "changing a pool");
    const perform = (step: PoolStep) => driver.perform(name, step, signal);
    return runSteps(steps, { perform, log: this.#log, signal, checkpoint: this.#checkpoint });
  }

  async #takeDown(name: string, signal: AbortSignal): Promise<Omit<NotReady, "ready"> | undefined> {
    const note = await readNote(this.#paths, name);
    const kind = note?.driver ?? "btrfs";
    const driver = this.#drivers[kind];
    if ((await driver.planRemoval(name)).length === 0) return undefined;
    // What is not mounted cannot be seen to be empty.
    if (!(await this.#mounted(name)) && (await this.#mayHoldDisks(name))) {
      const source = kind === "dir" ? { path: note?.path ?? "/" } : { loop: {} };
      const shared = note?.shared === true ? { shared: true } : {};
      const refusal = await this.#bringUp({ name, spec: { driver: kind, source, ...shared } }, signal);
      const lost = refusal?.reason === "PoolGone" || refusal?.reason === "ForeignData";
      if (refusal && !lost) return { reason: refusal.reason, message: refusal.message };
    }
    if (await this.#mounted(name)) {
      const instances = await this.#instancesIn(name, note);
      if (instances.length > 0) {
        const who = instances.length === 1 ? "an instance" : `${instances.length} instances`;
        return {
          reason: "PoolInUse",
          message: `pool ${name} holds disks of ${who} on node ${this.#node}; delete the instances first`,
        };
      }
    }
    await this.#run(name, driver, await driver.planRemoval(name), signal);
    return undefined;
  }

  /** Instances for whose sake the pool must stay: of a directory that other nodes have too, those that are this node's. */
  async #instancesIn(name: string, note: PoolNote | undefined): Promise<string[]> {
    const place = this.#paths.pool(name);
    const all = await instancesWithVolumes(join(place, "volumes"));
    if (note?.shared !== true || !(await othersUse(place, this.#node))) return all;
    const here = await Promise.all(all.map((uid) => exists(this.#paths.instance(uid))));
    return all.filter((_, index) => here[index]);
  }

  /** Whether the agent sees the pool mounted; a plain directory in its place would be the node's own disk. */
  async #mounted(name: string): Promise<boolean> {
    const place = this.#paths.pool(name);
    const [own, onTheNode] = await Promise.all([mountAt(place, "self"), mountAt(place, nodePid())]);
    return own !== undefined && own.source === onTheNode?.source;
  }

  /** Whether a pool that is not mounted has bytes somewhere. */
  async #mayHoldDisks(name: string): Promise<boolean> {
    const note = await readNote(this.#paths, name);
    return note?.driver === "dir" || (await exists(this.#paths.loop(name)));
  }

  async #look(name: string, refusal: Refusal | undefined): Promise<HostPool> {
    const mounted = await this.#mounted(name);
    const usable = mounted && (refusal === undefined || refusal.usable === true);
    const room = mounted ? await fileSystemRoom(this.#paths.pool(name)) : undefined;
    const note = mounted ? await readNote(this.#paths, name) : undefined;
    const base = {
      name,
      ...(room ? { sizeBytes: room.sizeBytes, usedBytes: room.usedBytes } : {}),
      ...(note?.shared === true ? { directory: note.id } : {}),
    };
    const host = { ...base, ...this.#verdict(name, mounted, refusal, room) };
    const before = this.#seen.get(name)?.host;
    if (before?.reason !== host.reason || before?.message !== host.message) {
      if (!host.ready) this.#log.warn({ pool: name, reason: host.reason, message: host.message }, "pool is not ready");
      else this.#log.info({ pool: name, size: room && formatSize(room.sizeBytes), message: host.message }, "pool is ready");
    }
    const shared = usable && note?.shared === true;
    this.#seen.set(name, {
      host,
      usable,
      volumes: shared ? await volumeBytes(join(this.#paths.pool(name), "volumes")) : undefined,
    });
    if (!before || before.ready !== host.ready || before.reason !== host.reason || before.sizeBytes !== host.sizeBytes)
      this.#tell(name);
    return host;
  }

  #tell(name: string): void {
    for (const listener of this.#listeners) listener(name);
  }

  #verdict(
    name: string,
    mounted: boolean,
    refusal: Refusal | undefined,
    room: { sizeBytes: number; freeBytes: number } | undefined,
  ): Pick<HostPool, "ready" | "reason" | "message"> {
    const refused = refusal && { reason: refusal.reason, message: refusal.message };
    if (refused && !(mounted && refusal.usable)) return { ready: false, ...refused };
    if (!mounted || !room)
      return { ready: false, reason: "PoolGone", message: `pool ${name} is not mounted on node ${this.#node} any more` };
    const headroom = poolHeadroom(room.sizeBytes);
    if (room.freeBytes < headroom) return { ready: false, reason: "PoolFull", message: fullText(name, room, headroom) };
    return { ready: true, ...refused };
  }
}

const missing = ({ pool, disk }: VolumeRequest): UserError =>
  new UserError(
    "SharedDiskMissing",
    `pool ${pool} is said to be shared, but disk ${disk} is not in it on this node; does every node mount the same file system?`,
  );

const fullText = (name: string, room: { sizeBytes: number; freeBytes: number }, needed: number): string =>
  `pool ${name} is full: ${formatSize(room.freeBytes)} of ${formatSize(room.sizeBytes)} is free, and ${formatSize(needed)} is needed; delete instances, or let it grow (source.loop.size)`;

/** What a later look keeps of an earlier refusal that left the pool usable. */
function keepRefusal(host: HostPool): Refusal | undefined {
  if (!host.ready || host.reason === undefined) return undefined;
  return { step: "refuse", reason: host.reason, message: host.message ?? host.reason, usable: true };
}

/** A failure as a reason and a sentence. */
function mendable(error: unknown): Omit<NotReady, "ready"> {
  if (error instanceof UserError) return { reason: error.reason, message: error.message };
  const reason = error instanceof CommandError && error.timedOut ? "PoolTimedOut" : "PoolFailed";
  return { reason, message: errorText(error) };
}
