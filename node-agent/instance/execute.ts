/** Carries out the steps of a plan, each of which may be repeated. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { Instance } from "../../crds/instance.ts";
import type { Clock, Logger } from "../../kube/index.ts";
import { disksOf, ROOT_DISK } from "../../crds/disks.ts";
import { parseBytes } from "../../crds/quantity.ts";
import { errorText, UserError } from "../errors.ts";
import { ImageError, type Images } from "../image/index.ts";
import type { Nics } from "../nic/index.ts";
import type { HostFacts } from "../host/index.ts";
import type { NodePaths } from "../node.ts";
import type { Pools } from "../pool/index.ts";
import type { GuestIdentity } from "../types.ts";
import { chooseMachine } from "./choose.ts";
import type { InstanceDriver, MachineDisk } from "./driver.ts";
import type { Progress } from "./guest-status.ts";
import type { Failure, Situation, Step } from "./plan.ts";
import { noteStart } from "./restart.ts";
import { machineNics } from "./machine.ts";
import { writeRestartNote } from "./restart-note.ts";

export interface ExecutorParts {
  driver: InstanceDriver;
  pools: Pick<Pools, "ensureVolume" | "removeVolumes" | "place">;
  images: Pick<Images, "ensure">;
  nics: Pick<Nics, "ensure" | "removeAll">;
  /** Waits until they are known. Throws UserError when no guest can be run here. */
  hostFacts: () => Promise<HostFacts>;
  paths: NodePaths;
  clock: Clock;
  log: Logger;
}

/** A step that did not come about, with what it was part of. */
export class StageError extends Error {
  readonly stage: Failure["stage"];
  readonly reason: string;
  /** Who refused knows that it is of no use before. */
  readonly retryAfterMs: number;

  constructor(stage: Failure["stage"], cause: unknown) {
    super(errorText(cause), { cause });
    this.stage = stage;
    this.reason = cause instanceof UserError ? cause.reason : UNEXPECTED[stage];
    this.retryAfterMs = cause instanceof ImageError ? cause.retryAfterMs : 0;
  }
}

const UNEXPECTED: Record<Failure["stage"], string> = {
  image: "ImageFailed",
  disks: "DisksFailed",
  network: "NetworkFailed",
  start: "StartFailed",
};

/** One pass over the steps of a plan; holds what one step gives to the next. */
export class Execution {
  readonly #parts: ExecutorParts;
  readonly #instance: Instance;
  readonly #situation: Situation;
  readonly #progress: Progress;
  readonly #onProgress: () => void;
  /** Whether the guest's process was started or ended. */
  changed = false;
  #identity: GuestIdentity | undefined;
  #image: { path: string; virtualSizeBytes: number } | undefined;
  #disks: MachineDisk[] = [];

  constructor(parts: ExecutorParts, instance: Instance, situation: Situation, progress: Progress, onProgress: () => void) {
    this.#parts = parts;
    this.#instance = instance;
    this.#situation = situation;
    this.#progress = progress;
    this.#onProgress = onProgress;
    this.#identity = situation.observed.note?.identity;
  }

  /** Throws StageError for what keeps a guest from starting; anything else as it is. */
  async run(step: Step, signal: AbortSignal): Promise<void> {
    const { driver, nics, pools } = this.#parts;
    const { uid } = this.#instance.metadata;
    switch (step.step) {
      case "prepare":
        this.#identity = await driver.prepare(this.#name());
        return;
      case "ensure-image":
        return this.#stage("image", signal, () => this.#ensureImage(signal));
      case "ensure-volumes":
        return this.#stage("disks", signal, () => this.#ensureVolumes(signal));
      case "ensure-taps":
        return this.#stage("network", signal, () => this.#ensureTaps(signal));
      case "start":
        return this.#stage("start", signal, () => this.#start(signal));
      case "stop":
        await driver.stop(uid, { mode: step.mode, deadlineMs: step.deadlineMs }, signal);
        this.changed = true;
        return;
      case "remove-taps":
        return nics.removeAll(uid, nicNames(this.#instance), signal);
      case "remove-volumes":
        return pools.removeVolumes(uid);
      case "forget":
        return driver.forget(uid);
    }
  }

  #name(): { instanceUid: string; namespace: string; name: string } {
    const { uid, namespace = "", name } = this.#instance.metadata;
    return { instanceUid: uid, namespace, name };
  }

  async #stage(stage: Failure["stage"], signal: AbortSignal, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      signal.throwIfAborted();
      throw new StageError(stage, error);
    }
  }

  /** A disk that is there needs no image: it may be deleted, or its server gone, by the time that the guest starts again. */
  async #ensureImage(signal: AbortSignal): Promise<void> {
    const { url, checksum } = this.#instance.spec.image;
    const pool = this.#rootPool();
    const place = await this.#parts.pools.place(pool);
    const uid = this.#instance.metadata.uid;
    if (!(await isFile(join(place.volumes, uid, `${ROOT_DISK}.raw`))) && url !== undefined && checksum !== undefined) {
      this.#progress.image ??= { ready: false, reason: "Fetching", message: "the image is being fetched" };
      this.#onProgress();
      this.#image = await this.#parts.images.ensure({ url, checksum, pool }, signal);
    }
    this.#progress.image = { ready: true };
  }

  async #ensureVolumes(signal: AbortSignal): Promise<void> {
    const identity = this.#knownIdentity();
    const instanceUid = this.#instance.metadata.uid;
    const disks: MachineDisk[] = [];
    for (const { name, pool, sizeBytes } of disksOf(this.#instance)) {
      const image = name === ROOT_DISK ? this.#image : undefined;
      const from = image && { imagePath: image.path, virtualSize: image.virtualSizeBytes };
      const request = { pool, instanceUid, disk: name, sizeBytes, ...(from && { from }), ...identity };
      const { path } = await this.#parts.pools.ensureVolume(request, signal);
      disks.push({ id: name, pool, path });
    }
    this.#disks = disks;
    this.#progress.disks = { ready: true };
  }

  async #ensureTaps(signal: AbortSignal): Promise<void> {
    const identity = this.#knownIdentity();
    for (const nic of this.#instance.status?.nics ?? []) {
      await this.#parts.nics.ensure({ instanceUid: this.#instance.metadata.uid, nic }, identity.uid, signal);
    }
  }

  async #start(signal: AbortSignal): Promise<void> {
    const { driver, paths } = this.#parts;
    const { spec } = this.#instance;
    const { observed, note, claim } = this.#situation;
    if (claim === undefined) throw new Error("a start without a claim");
    const machine = chooseMachine(await this.#parts.hostFacts(), observed.note?.run, this.#instance.status?.guest);
    const name = this.#name();
    const ended = { exit: observed.exit, startedAt: observed.note?.run?.startedAt };
    // Written first: an agent that dies after the start would start it a second time for the same spec.restartedAt.
    await writeRestartNote(paths, name.instanceUid, noteStart(note, ended, spec.restartedAt));
    try {
      await driver.start(
        {
          ...name,
          ...machine,
          claimUid: claim.uid,
          identity: this.#knownIdentity(),
          cpus: spec.cpu,
          memoryBytes: parseBytes(spec.memory),
          disks: this.#disks,
          nics: machineNics(this.#instance),
        },
        signal,
      );
    } catch (error) {
      await writeRestartNote(paths, name.instanceUid, note);
      throw error;
    }
    this.changed = true;
  }

  #rootPool(): string {
    const pool = disksOf(this.#instance).find(({ name }) => name === ROOT_DISK)?.pool;
    if (pool === undefined) throw new UserError("PoolMissing", "rootDisk.pool is required");
    return pool;
  }

  #knownIdentity(): GuestIdentity {
    if (this.#identity === undefined) throw new Error("prepare comes first");
    return this.#identity;
  }
}

/** Names of its NICs, of the spec and of the status: whichever of them had a tap. */
export const nicNames = (instance: Instance): string[] => [
  ...new Set([...(instance.spec.nics ?? []), ...(instance.status?.nics ?? [])].map(({ name }) => name)),
];

const isFile = (path: string): Promise<boolean> =>
  stat(path).then(
    (info) => info.isFile(),
    () => false,
  );
