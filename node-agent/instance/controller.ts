/** Keeps the guests of this node as their instances say. Level-triggered: looks anew each time. */
import type { GuestStatus, Instance } from "../../crds/instance.ts";
import { poolsOf } from "../../crds/disks.ts";
import { tapName } from "../../crds/names.ts";
import { backoffMs, keyText, type Informer, type ObjectKey, type Requeue } from "../../kube/index.ts";
import type { Claims } from "../claim/claims.ts";
import { errorText } from "../errors.ts";
import type { HostFacts } from "../host/index.ts";
import type { Nics } from "../nic/index.ts";
import { Execution, StageError, type ExecutorParts } from "./execute.ts";
import { guestStatus, type Progress } from "./guest-status.ts";
import {
  failureOutlook,
  isAlive,
  planInstance,
  type Failure,
  type Outlook,
  type Plan,
  type Situation,
  type Step,
} from "./plan.ts";
import type { Reporter } from "./reporter.ts";
import { readRestartNote } from "./restart-note.ts";

export interface InstanceParts extends ExecutorParts {
  nodeName: string;
  /** Instances of this node. */
  instances: Pick<Informer<Instance>, "get">;
  nics: Nics;
  claims: Pick<Claims, "state" | "endHolders" | "of">;
  reporter: Reporter;
  /** What a move of the instance wants left alone. taps: all but its taps. */
  hold: (instanceUid: string) => "taps" | "all" | undefined;
  /** What guests that start now get, as far as it is known. */
  knownFacts?: () => HostFacts | undefined;
  /** Whether a pool of this node can be used, and why not. */
  pool: (name: string) => { ready: true } | { ready: false; reason: string; message: string };
}

/** Rounds of look, plan, act in one reconcile: stop, then start, then say so. */
const ROUNDS = 4;
const RETRY_FIRST_MS = 2_000;
const RETRY_LONGEST_MS = 30_000;
/** What could not be removed is tried again after this. */
const CLEAN_RETRY_MS = 10_000;
/** While a holder that should end is still there. */
const HOLDER_RETRY_MS = 3_000;

interface Memory {
  uid: string;
  failure: (Failure & { claimUid: string }) | undefined;
  failures: number;
  progress: Progress;
  unwatch: () => void;
}

export class InstanceController {
  readonly #parts: InstanceParts;
  readonly #enqueue: (key: ObjectKey) => void;
  readonly #memories = new Map<string, Memory>();
  /** What runs now and could be made moot by a change. */
  readonly #running = new Map<string, { intent: string; abort: AbortController }>();

  constructor(parts: InstanceParts, enqueue: (key: ObjectKey) => void) {
    this.#parts = parts;
    this.#enqueue = enqueue;
  }

  /** An instance or its claim changed: what is under way for an intent that is no longer so is broken off. */
  changed(key: ObjectKey): void {
    const running = this.#running.get(keyText(key));
    if (running !== undefined && running.intent !== this.#intent(key)) running.abort.abort(new Moot());
  }

  /** Tries at once again what waits for something that may have healed, such as a pool. */
  retry(key: ObjectKey): void {
    const memory = this.#memories.get(keyText(key));
    if (memory?.failure !== undefined) memory.failure = { ...memory.failure, retryAt: 0 };
    this.#enqueue(key);
  }

  async reconcile(key: ObjectKey, signal: AbortSignal): Promise<Requeue | void> {
    const instance = this.#parts.instances.get(key);
    if (instance === undefined) return this.#withoutInstance(key);
    const hold = this.#parts.hold(instance.metadata.uid);
    // What was said of it stands for as long as its move goes on; it is looked at again when that ends.
    const said = this.#parts.reporter.said(instance);
    if (hold !== undefined && said !== undefined) this.#parts.reporter.say(instance, said);
    if (hold === "all") return;
    const memory = this.#memory(key, instance);
    const abort = new AbortController();
    this.#running.set(keyText(key), { intent: this.#intent(key), abort });
    try {
      return await this.#rounds(key, memory, AbortSignal.any([signal, abort.signal]));
    } catch (error) {
      if (abort.signal.aborted && !signal.aborted) return { afterMs: 0 };
      throw error;
    } finally {
      this.#running.delete(keyText(key));
    }
  }

  /** Lets go of all guests; they run on. */
  close(): void {
    for (const memory of this.#memories.values()) memory.unwatch();
    this.#memories.clear();
  }

  async #withoutInstance(key: ObjectKey): Promise<Requeue | void> {
    const memory = this.#memories.get(keyText(key));
    if (memory !== undefined) {
      memory.unwatch();
      this.#memories.delete(keyText(key));
      this.#parts.reporter.forget(memory.uid);
    }
    if (await this.#parts.claims.endHolders(key)) return { afterMs: HOLDER_RETRY_MS };
  }

  async #rounds(key: ObjectKey, memory: Memory, signal: AbortSignal): Promise<Requeue | void> {
    for (let round = 0; round < ROUNDS; round++) {
      const instance = this.#parts.instances.get(key);
      if (instance === undefined || instance.metadata.uid !== memory.uid) return { afterMs: 0 };
      const situation = await this.#look(key, instance, memory);
      const plan = planInstance(situation);
      const { changed, again } = await this.#carryOut(instance, situation, plan, memory, signal);
      if (changed) continue;
      const holders = await this.#parts.claims.endHolders(key);
      const wait = Math.min(again ?? Number.POSITIVE_INFINITY, holders ? HOLDER_RETRY_MS : Number.POSITIVE_INFINITY);
      return Number.isFinite(wait) ? { afterMs: wait } : undefined;
    }
    return { afterMs: 1_000 };
  }

  async #carryOut(
    instance: Instance,
    situation: Situation,
    plan: Plan,
    memory: Memory,
    signal: AbortSignal,
  ): Promise<{ changed: boolean; again: number | undefined }> {
    const during = (): void => this.#say(instance, situation, plan.during, memory);
    const execution = new Execution(this.#parts, instance, situation, memory.progress, during);
    let again = plan.againMs;
    const sooner = (ms: number): void => {
      again = Math.min(again ?? ms, ms);
    };
    during();
    for (const step of plan.steps) {
      signal.throwIfAborted();
      try {
        await execution.run(step, signal);
        if (step.step === "start") this.#started(memory);
      } catch (error) {
        signal.throwIfAborted();
        const wait = this.#failed(instance, situation, step, error, memory);
        sooner(wait);
        if (!isTidying(step, situation)) return { changed: false, again };
      }
    }
    if (!execution.changed || situation.deleting) this.#say(instance, situation, plan.after, memory);
    return { changed: execution.changed && !situation.deleting, again };
  }

  #started(memory: Memory): void {
    memory.failure = undefined;
    memory.failures = 0;
  }

  /** Notes and says why a step did not come about; gives when to try again. */
  #failed(instance: Instance, situation: Situation, step: Step, error: unknown, memory: Memory): number {
    const { clock, log } = this.#parts;
    const name = keyText(keyOfInstance(instance));
    if (!(error instanceof StageError)) {
      log.warn({ instance: name, step: step.step, err: error }, "a step failed; trying again");
      if (situation.deleting) {
        const words = `it cannot be removed from the node yet (${step.step}): ${errorText(error)}`;
        this.#say(
          instance,
          situation,
          { state: "Stopping", reason: "ReleaseFailed", message: words, ...claimOf(situation) },
          memory,
        );
      }
      return CLEAN_RETRY_MS;
    }
    memory.failures += 1;
    const { stage, reason, message, retryAfterMs } = error;
    const backoff = backoffMs(memory.failures, { baseMs: RETRY_FIRST_MS, capMs: RETRY_LONGEST_MS, jitter: 0.2 });
    const wait = Math.max(backoff, retryAfterMs);
    log.warn({ instance: name, stage, reason, message, retryMs: Math.round(wait) }, "the guest cannot be started yet");
    const claimUid = situation.claim?.uid ?? "";
    const failure = { stage, reason, message, retryAt: clock.now() + wait, claimUid };
    if (stage === "image") memory.progress.image = { ready: false, reason, message };
    if (stage === "disks") memory.progress.disks = { ready: false, reason, message };
    // A guest that runs has not failed because one of its taps could not be looked after.
    if (isAlive(situation.observed)) return wait;
    memory.failure = failure;
    this.#say(instance, situation, failureOutlook(failure, claimUid), memory);
    return wait;
  }

  async #look(key: ObjectKey, instance: Instance, memory: Memory): Promise<Situation> {
    const { driver, claims, nodeName, paths, clock, reporter } = this.#parts;
    const { uid, deletionTimestamp } = instance.metadata;
    const claim = instance.status?.claim;
    const ours = claim?.uid !== undefined && (claim.node ?? instance.status?.nodeName) === nodeName;
    const [observed, note, state] = await Promise.all([
      driver.observe(uid),
      readRestartNote(paths, uid),
      ours ? claims.state(key, { uid: claim.uid ?? "", name: claim.name }) : undefined,
    ]);
    const elsewhere = isAlive(observed) && observed.claimUid !== undefined && observed.claimUid !== claim?.uid;
    const failure = memory.failure?.claimUid === claim?.uid ? memory.failure : undefined;
    this.#lookAtPool(instance, memory);
    return {
      now: clock.now(),
      spec: instance.spec,
      deleting: deletionTimestamp !== undefined,
      claim: ours && state !== undefined ? { uid: claim.uid ?? "", state } : undefined,
      observed,
      otherClaim: elsewhere ? await claims.state(key, { uid: observed.claimUid ?? "", name: undefined }) : undefined,
      note:
        note.known || instance.status?.guest?.restartedAt === undefined
          ? note
          : { ...note, known: true, restartedAt: instance.status.guest.restartedAt },
      failure,
      said: reporter.said(instance),
      moving: this.#parts.hold(uid) !== undefined,
    };
  }

  /** A pool that went away under a guest is said of its disks; one that came back as well. */
  #lookAtPool(instance: Instance, memory: Memory): void {
    const { disks } = memory.progress;
    if (disks === undefined) return;
    const away = poolsOf(instance)
      .map((name) => this.#parts.pool(name))
      .find((pool) => !pool.ready);
    if (away !== undefined && disks.ready) memory.progress.disks = { ready: false, reason: away.reason, message: away.message };
    if (away === undefined && !disks.ready && memory.failure?.stage !== "disks") memory.progress.disks = { ready: true };
  }

  #say(instance: Instance, situation: Situation, outlook: Outlook, memory: Memory): void {
    const { nics, reporter } = this.#parts;
    const { uid } = instance.metadata;
    const guest: GuestStatus | undefined = guestStatus({
      outlook,
      observed: situation.observed,
      note: situation.note,
      nics: (instance.spec.nics ?? []).map(({ name }) => {
        const tap = tapName(uid, name);
        return { name, tap, installed: nics.installed(tap) };
      }),
      progress: memory.progress,
      said: reporter.said(instance),
      current: this.#parts.knownFacts?.(),
    });
    if (guest !== undefined) reporter.say(instance, guest);
  }

  #memory(key: ObjectKey, instance: Instance): Memory {
    const text = keyText(key);
    const known = this.#memories.get(text);
    if (known?.uid === instance.metadata.uid) return known;
    known?.unwatch();
    const { image, disks } = instance.status?.guest ?? {};
    const memory: Memory = {
      uid: instance.metadata.uid,
      failure: undefined,
      failures: 0,
      progress: { ...(image?.ready ? { image } : {}), ...(disks?.ready ? { disks } : {}) },
      unwatch: this.#parts.driver.watch(instance.metadata.uid, () => this.#enqueue(key)),
    };
    this.#memories.set(text, memory);
    return memory;
  }

  /** What is wanted of an instance, as one text: when it changes, what is under way may be for nothing. */
  #intent(key: ObjectKey): string {
    const instance = this.#parts.instances.get(key);
    if (instance === undefined) return "gone";
    const { metadata, spec, status } = instance;
    const pods = this.#parts.claims.of(key);
    const claim = pods.find((pod) => pod.metadata.uid === status?.claim?.uid);
    return JSON.stringify([
      metadata.uid,
      metadata.deletionTimestamp !== undefined,
      spec.power,
      spec.restartedAt,
      status?.claim?.uid,
      claim?.metadata.deletionTimestamp,
      this.#parts.hold(metadata.uid),
    ]);
  }
}

/** What is under way is no longer wanted. */
class Moot extends Error {
  override name = "Moot";
}

/** Removing taps of a guest that does not run is tidiness, unless the instance is to be gone: nobody waits for it. */
const isTidying = (step: Step, situation: Situation): boolean => step.step === "remove-taps" && !situation.deleting;

const claimOf = (situation: Situation): { claimUid?: string } =>
  situation.claim === undefined ? {} : { claimUid: situation.claim.uid };

const keyOfInstance = (instance: Instance): ObjectKey => {
  const { namespace, name } = instance.metadata;
  return namespace === undefined ? { name } : { namespace, name };
};
