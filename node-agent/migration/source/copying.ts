/** Disks, then memory, until what is left fits into the pause: what the source does while the guest runs. */
import type { Migration, MigrationSource, MigrationTarget } from "../../../crds/migration.ts";
import type { CopiedDisk, MoveCounters, OutgoingPlan, OutgoingState } from "../../instance/move.ts";
import { errorText } from "../../errors.ts";
import type { TargetMessage } from "../channel/messages.ts";
import type { MoveNote, Why } from "../notes.ts";
import { GiveUp, whyOf, type SideParts } from "../parts.ts";
import { decidePolicy, isLate, keepSamples, mayThrottle, type Sample } from "../policy.ts";
import { tooLong } from "../wishes.ts";
import { timeText } from "../words.ts";
import type { Caller } from "./caller.ts";
import { progressWords } from "./words.ts";

type Offered = Extract<TargetMessage, { type: "offer" }>;

/** Least and longest wait between two looks at the counters, ms. */
const SOONEST_MS = 60;
const LATEST_MS = 1_000;
/** Until the target's agent has said where to send, once it is ready; it answers from what it has, and is asked again on the way. */
const OFFER_MS = 10_000;
const ASK_AGAIN_MS = 2_000;
/** Until the target waits for the guest: image-less volumes, taps and a QEMU. */
const READY_MS = 5 * 60_000;
/** To wait is worth a word after this. */
const SAY_WAITING_MS = 1_000;

export interface CopyingParts extends Pick<SideParts, "moves" | "checkpoint" | "clock" | "log"> {
  note: () => MoveNote;
  migration: () => Migration;
  writeNote: (change: (note: MoveNote) => MoveNote) => Promise<void>;
  caller: () => Caller;
  say: (words: Partial<MigrationSource> & Pick<MigrationSource, "state">) => void;
  /** What is wanted may have changed. */
  changed: () => void;
  /** Whether the guest may be stopped already. */
  switching: () => boolean;
  /** Whether the guest stands still: then nothing is asked. */
  pausing: () => boolean;
}

export class Copying {
  readonly #parts: CopyingParts;
  #running: Promise<void> | undefined;
  #stop = new AbortController();
  #offer: Offered | undefined;
  /** The guest itself may come, says the target. */
  #settled = false;
  #timer: object | undefined;
  #looking = false;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #samples: Sample[] = [];
  #throttled = false;
  /** Memory is on its way: policy counts. */
  #memory = false;
  #stalled: string | undefined;
  #nudged: (() => void) | undefined;
  /** What is left fits into the pause, or may follow after it; from then on for good. */
  fits = false;
  /** Whatever is left may follow after the pause. */
  postCopy = false;
  #canPostCopy = false;
  failed: Why | undefined;

  constructor(parts: CopyingParts) {
    this.#parts = parts;
  }

  /** Begins, or goes on with what an earlier agent began; to be repeated at will. */
  go(qemu: OutgoingState, signal: AbortSignal): void {
    if (this.#running !== undefined || this.failed !== undefined) return;
    const both = AbortSignal.any([signal, this.#stop.signal]);
    this.#running = this.#copy(qemu, both).catch((error: unknown) => {
      if (both.aborted) return;
      this.failed = whyOf(error, this.#memory ? "MemoryCopyFailed" : "DiskCopyFailed");
      this.#parts.changed();
    });
  }

  offered(offer: Offered): void {
    this.#offer ??= offer;
    // One that says nothing of it says it when all is there.
    const settled = offer.settled !== false;
    if (settled && !this.#settled && this.#memory) this.#lookIn(0);
    this.#settled ||= settled;
    this.nudge();
  }

  /** The target, or the connection to its agent, may be another than it was. */
  nudge(): void {
    this.#nudged?.();
  }

  /** Another pass over the memory began. */
  round(): void {
    const { clock } = this.#parts;
    if (clock.monotonic() - this.#lookedAt >= SOONEST_MS) this.#lookIn(0);
  }

  /** Nothing is begun any more. What QEMU does goes on. */
  stop(): void {
    this.#stop.abort();
    this.#parts.clock.clearTimeout(this.#timer);
  }

  async #copy(qemu: OutgoingState, signal: AbortSignal): Promise<void> {
    const { moves, note, checkpoint, migration } = this.#parts;
    const { uid } = note().instance;
    const offer = await this.#whereTo(signal);
    const disks = (migration().status?.disks ?? []).filter(({ copy }) => copy);
    const copy = disks.map(({ name, sizeBytes }): CopiedDisk => ({ disk: name, sizeBytes }));
    const { policy } = migration().status ?? {};
    const { address, ramPort, diskPort, streams, postCopy, secret } = offer;
    this.#canPostCopy = postCopy;
    const plan: OutgoingPlan = {
      offer: { address, ramPort, diskPort, streams, postCopy },
      copy,
      secret,
      maxBytesPerSecond: policy?.maxBytesPerSecond,
      mayThrottle: policy !== undefined && mayThrottle(policy, postCopy),
    };
    if (qemu === "idle") {
      if (note().memoryStarted === true) {
        throw new GiveUp({
          reason: "MemoryCopyFailed",
          message: "copying the memory ended while no agent was there",
          retryable: true,
        });
      }
      this.#parts.say({ state: copy.length > 0 ? "CopyingDisk" : "CopyingMemory" });
      await checkpoint("source", "copy-disks");
      if (copy.length > 0) {
        this.#lookIn(LATEST_MS);
        await moves.copyDisks(uid, plan, signal);
      }
      await this.#parts.writeNote((before) => ({ ...before, memoryStarted: true }));
      await checkpoint("source", "copy-memory");
      this.#memory = true;
      await moves.copyMemory(uid, plan, signal);
    }
    this.#memory = true;
    this.#parts.say({ state: "CopyingMemory" });
    this.#lookIn(SOONEST_MS);
  }

  /**
   * Resolves with where to send. The target's agent is called as soon as it says where it is, while it makes the guest's place; asked once
   * for each connection, it answers when it can.
   */
  async #whereTo(signal: AbortSignal): Promise<Offered> {
    const { note, migration, caller, clock, checkpoint } = this.#parts;
    const since = clock.monotonic();
    let asked: { by: unknown; at: number } | undefined;
    let readyAt: number | undefined;
    while (this.#offer === undefined) {
      const waited = clock.monotonic() - since;
      const said = migration().status?.target;
      const target = said?.attempt === note().attempt ? said : undefined;
      if (target?.endpoint !== undefined) {
        if (asked === undefined) await checkpoint("source", "connect");
        const { open, connection } = caller();
        asked ??= { by: undefined, at: clock.monotonic() };
        if (open && (asked.by !== connection || clock.monotonic() - asked.at >= ASK_AGAIN_MS)) {
          caller().send({ type: "want-offer" });
          asked = { by: connection, at: clock.monotonic() };
        }
      }
      if (target?.state === "Ready" && caller().open) readyAt ??= clock.monotonic();
      else readyAt = undefined;
      const answers = readyAt === undefined || clock.monotonic() - readyAt < OFFER_MS;
      if (waited >= READY_MS || !answers)
        throw new GiveUp({ reason: "TargetSilent", message: silent(target, caller), retryable: true });
      if (waited >= SAY_WAITING_MS) this.#parts.say({ state: "Waiting" });
      await this.#pause(Math.min(READY_MS - waited, waited < SAY_WAITING_MS ? SAY_WAITING_MS : ASK_AGAIN_MS), signal);
    }
    return this.#offer;
  }

  #lookIn(ms: number): void {
    const { clock } = this.#parts;
    clock.clearTimeout(this.#timer);
    if (this.#stop.signal.aborted) return;
    this.#timer = clock.setTimeout(() => void this.#look(), ms);
  }

  async #look(): Promise<void> {
    const { moves, note, clock, log, pausing } = this.#parts;
    if (this.#looking || pausing()) return;
    this.#looking = true;
    this.#lookedAt = clock.monotonic();
    try {
      const counters = await moves.counters(note().instance.uid);
      if (this.#stop.signal.aborted || pausing()) return;
      await this.#follow(counters);
      if (!this.fits) this.#report(counters);
      this.#lookIn(this.fits ? LATEST_MS : nextLook(counters, this.#memory));
    } catch (error) {
      log.debug({ instance: note().instance.name, error: errorText(error) }, "QEMU does not tell how far it is");
      this.#lookIn(LATEST_MS);
    } finally {
      this.#looking = false;
    }
  }

  async #follow(counters: MoveCounters): Promise<void> {
    const { moves, note, migration, clock, changed, log } = this.#parts;
    const { policy } = migration().status ?? {};
    const now = clock.monotonic();
    // The wall's time: an agent that died in between does not make it longer.
    const since = now - Math.max(0, clock.now() - note().since);
    if (!this.#memory) {
      // What QEMU counts of memory is of another attempt as yet.
      if (policy !== undefined && isLate({ now, since, policy })) this.#leave(tooLong("copying", policy.timeoutMs));
      return;
    }
    this.#samples = keepSamples(this.#samples, { at: now, counters });
    if (policy === undefined) return;
    const decision = decidePolicy({
      now,
      since,
      policy,
      samples: this.#samples,
      throttled: this.#throttled,
      canPostCopy: this.#canPostCopy,
    });
    if (decision.stalled !== undefined && this.#stalled === undefined)
      log.warn({ migration: note().migration.name, stalled: decision.stalled }, "the memory does not converge");
    this.#stalled = decision.stalled;
    switch (decision.do) {
      case "switch":
        if (this.fits || !this.#settled) return;
        // The last figures of the copy: a guest that was slowed may have been seen so only now.
        this.#report(counters);
        this.fits = true;
        changed();
        return;
      case "throttle":
        this.#throttled = true;
        await moves.throttle(note().instance.uid);
        return;
      case "abort":
        this.#leave(
          decision.stalled === undefined
            ? tooLong("copying", policy.timeoutMs)
            : { reason: decision.reason ?? "TimedOut", message: decision.stalled, retryable: false },
        );
        return;
      // Also when it fitted once: a guest may begin to write while its source waits for the moment to stop it.
      case "post-copy":
        if (!this.#settled || this.postCopy) return;
        this.#report(counters);
        this.postCopy = true;
        this.fits = true;
        changed();
        return;
      case "wait":
    }
  }

  #leave(why: Why): void {
    this.failed ??= why;
    this.#parts.changed();
  }

  #report(counters: MoveCounters): void {
    const copying = this.#memory ? "CopyingMemory" : "CopyingDisk";
    const state = this.#parts.switching() ? "SwitchingOver" : copying;
    const words = progressWords(counters);
    this.#parts.say({ ...words, state, ...(this.#stalled === undefined ? { stalled: undefined } : { stalled: this.#stalled }) });
  }

  /** Until something is new, at most so long. Rejects when the signal aborts. */
  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    const { clock } = this.#parts;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const timer = clock.setTimeout(resolve, ms);
    const ended = (): void => reject(signal.reason instanceof Error ? signal.reason : new Error("ended"));
    this.#nudged = resolve;
    signal.addEventListener("abort", ended, { once: true });
    try {
      signal.throwIfAborted();
      await promise;
    } finally {
      clock.clearTimeout(timer);
      signal.removeEventListener("abort", ended);
    }
  }
}

/** Why nothing was heard of where to send. */
function silent(target: MigrationTarget | undefined, caller: () => Caller): string {
  if (target?.endpoint !== undefined && !caller().open) return `the target's agent is not reached: ${caller().trouble}`;
  const words = target?.message === undefined ? "" : `: ${target.message}`;
  return target?.state === "Ready"
    ? "the target's agent did not say where to send the guest"
    : `the target was not ready within ${timeText(READY_MS)}${words}`;
}

/** When this pass over the memory will be over, as far as the rate tells: then the next look is worth its while. Pure. */
export function nextLook({ memory }: MoveCounters, copying: boolean): number {
  if (!copying) return LATEST_MS;
  if (memory.bytesPerSecond <= 0) return 4 * SOONEST_MS;
  return Math.max(SOONEST_MS, Math.min(LATEST_MS, (1_000 * memory.remainingBytes) / memory.bytesPerSecond));
}
