/** From a guest that runs here to one that can run at the target: when to stop it, and what happens while it stands still. */
import { errorText } from "../../../errors.ts";
import { queryMigrate, queryMirrors, type MirrorJob } from "./commands.ts";
import { isMigration, moveEvent } from "./events.ts";
import { MOVE_DEADLINE, nameOf } from "./names.ts";
import { isDraining, isUnderWay, type Outgoing } from "./outgoing.ts";
import { monitorOf, type MoveParts } from "./parts.ts";
import { Patience } from "./patience.ts";
import type { QmpEvent, QmpSession } from "../qmp/session.ts";

/** Rounds that follow each other this quickly are those of a QEMU that has nothing left to do; ms. */
const IDLE_ROUND_MS = 20;
/** It may do that for this long before it is slowed; whoever wants to stop the guest asks within this time as a rule. */
const IDLE_FOR_MS = 250;
/** A slowed one is let loose after this, to see whether the guest is still idle. */
const PACED_FOR_MS = 2_000;
/** Between two looks at least: an idle guest's QEMU makes thousands of passes a second, and each look asks it twice. */
const LOOK_EVERY_MS = 15;
/** And at most, once the guest may be stopped: a pass may be long, and what is left of it soon short enough. */
const LOOK_AGAIN_MS = 250;

export class Switchover {
  readonly #parts: MoveParts;
  readonly #outgoing: Outgoing;
  readonly #patience = new Patience();
  #allowedMs: number | undefined;
  #whateverIsLeft = false;
  #stopSent = false;
  #looking = false;
  #again = false;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #nextLook: object | undefined;
  #lastRound = 0;
  #idleSince = 0;
  #unpace: object | undefined;
  #closed = false;

  constructor(parts: MoveParts, outgoing: Outgoing) {
    this.#parts = parts;
    this.#outgoing = outgoing;
  }

  /** A pass over memory has begun; called very often when the guest is idle. */
  onRound(): void {
    const now = this.#parts.context.clock.monotonic();
    this.#outgoing.meter.round(now);
    if (now - this.#lastRound > IDLE_ROUND_MS) this.#idleSince = now;
    this.#lastRound = now;
    if (this.#allowedMs !== undefined) this.#look();
    else if (now - this.#idleSince > IDLE_FOR_MS) this.#pace();
  }

  /** From here on the guest is stopped at a moment at which that is expected to last no longer than this, and soon. */
  async allow(maxPauseMs: number): Promise<void> {
    const slowed = this.#outgoing.isSlowed;
    const first = this.#allowedMs === undefined;
    this.#allowedMs = maxPauseMs;
    if (first) this.#parts.marks.add(this.#outgoing.instanceUid, "pause-allowed");
    await this.#outgoing.setFree();
    // a slowed QEMU may sleep for a moment yet: the guest runs until it is awake, which its next round tells
    if (!slowed) this.#look();
  }

  /** Whether the guest may be, or was, stopped here for its switchover. */
  get isAllowed(): boolean {
    return this.#allowedMs !== undefined && !this.#closed;
  }

  /** Whether post-copy was asked for, so that the guest may be at the target already. */
  get ignoresWhatIsLeft(): boolean {
    return this.#whateverIsLeft;
  }

  /** Post-copy: the guest is stopped whatever is left to copy, once that is allowed. */
  ignoreWhatIsLeft(): void {
    this.#whateverIsLeft = true;
    if (this.#allowedMs !== undefined) this.#look();
  }

  /** Completes what is held. Throws when anything has failed: the guest then stands still, or runs if it was never stopped. */
  async finish(signal: AbortSignal): Promise<void> {
    const { instanceUid } = this.#outgoing;
    const qmp = await monitorOf(this.#parts, instanceUid);
    const { until, stop } = this.#parts.events.listen(instanceUid);
    try {
      const [migration, mirrors] = await Promise.all([queryMigrate(qmp), queryMirrors(qmp)]);
      if (migration.status === "completed" || isDraining(migration)) return;
      if (!isUnderWay(migration)) throw await this.#outgoing.failure();
      failIfBroken(mirrors);
      if (migration.status !== "pre-switchover" && migration.status !== "device") {
        const held = isMigration("pre-switchover", "device", "failed", "cancelled", "completed");
        const event = await until((one) => held(one) || isDiskFailure(one), "the switchover", { signal });
        await this.#failIf(event);
      }
      if (!this.#stopSent) await finishMirrors(qmp, await queryMirrors(qmp));
      for (const { disk } of mirrors.filter((one) => !one.concluded)) {
        const event = await until(endsDisk(disk), `the last of disk ${disk}`, { ms: MOVE_DEADLINE.switchover, signal });
        await this.#failIf(event);
      }
      if (mirrors.length > 0) this.#parts.marks.add(instanceUid, "disks-finished");
      await qmp.execute("migrate-continue", { state: "pre-switchover" });
      this.#parts.marks.add(instanceUid, "continued");
      const ended = isMigration("completed", "postcopy-active", "failed", "cancelled");
      await this.#failIf(await until(ended, "the switchover", { ms: MOVE_DEADLINE.switchover, signal }));
    } finally {
      stop();
    }
  }

  /** Nothing is stopped any more from here on. */
  close(): void {
    this.#closed = true;
    this.#parts.context.clock.clearTimeout(this.#unpace);
    this.#parts.context.clock.clearTimeout(this.#nextLook);
  }

  async #failIf(event: QmpEvent): Promise<void> {
    const what = moveEvent(event);
    if (what?.kind === "disk-failed") throw new Error(`disk ${what.disk} could not be brought in step: ${what.message ?? ""}`);
    if (what?.kind === "failed") throw await this.#outgoing.failure();
  }

  /** One look at a time, and not too many of them; a round that begins meanwhile makes another. */
  #look(): void {
    this.#again = true;
    if (this.#looking) return;
    const { clock } = this.#parts.context;
    const wait = this.#lookedAt + LOOK_EVERY_MS - clock.monotonic();
    if (wait > 0) this.#lookIn(wait);
    else void this.#lookNow();
  }

  #lookIn(ms: number): void {
    const { clock } = this.#parts.context;
    clock.clearTimeout(this.#nextLook);
    if (this.#stopSent || this.#closed) return;
    this.#nextLook = clock.setTimeout(() => {
      if (!this.#looking) void this.#lookNow();
    }, ms);
  }

  async #lookNow(): Promise<void> {
    if (this.#stopSent || this.#closed) return;
    const { clock, log } = this.#parts.context;
    this.#looking = true;
    this.#again = false;
    this.#lookedAt = clock.monotonic();
    try {
      await this.#stopIfShort();
    } catch (error) {
      const { instanceUid } = this.#outgoing;
      if (!this.#closed) log.warn({ instanceUid, error: errorText(error) }, "the guest could not be stopped");
    } finally {
      this.#looking = false;
      this.#lookIn(this.#again ? LOOK_EVERY_MS : LOOK_AGAIN_MS);
    }
  }

  async #stopIfShort(): Promise<void> {
    const { instanceUid, meter } = this.#outgoing;
    const { clock } = this.#parts.context;
    const qmp = await monitorOf(this.#parts, instanceUid);
    const [migration, mirrors] = await Promise.all([queryMigrate(qmp), queryMirrors(qmp)]);
    if (migration.status !== "active" || mirrors.some((one) => !one.ready || one.concluded)) return;
    const now = clock.monotonic();
    const { expectedPauseMs } = meter.look(now, migration, mirrors);
    const good = this.#patience.isOver(now, expectedPauseMs, this.#allowedMs ?? 0);
    if ((!good && !this.#whateverIsLeft) || this.#closed) return;
    this.#stopSent = true;
    // one after the other without waiting: QEMU finishes the mirrors while the last of the memory leaves
    await Promise.all([qmp.execute("stop", {}, { deadlineMs: MOVE_DEADLINE.switchover }), finishMirrors(qmp, mirrors)]);
  }

  #pace(): void {
    if (this.#unpace !== undefined) return;
    const { clock, log } = this.#parts.context;
    const set = (paced: boolean): void => {
      this.#outgoing.setPaced(paced).catch((error: unknown) => {
        log.debug({ instanceUid: this.#outgoing.instanceUid, error: errorText(error) }, "QEMU's pace could not be set");
      });
    };
    set(true);
    this.#unpace = clock.setTimeout(() => {
      this.#unpace = undefined;
      if (!this.#closed) set(false);
    }, PACED_FOR_MS);
  }
}

/** Asks mirrors that are in step to end so. */
async function finishMirrors(qmp: QmpSession, mirrors: readonly MirrorJob[]): Promise<void> {
  const going = mirrors.filter((one) => !one.concluded);
  await Promise.all(
    going.map(({ job }) => qmp.execute("block-job-cancel", { device: job }, { deadlineMs: MOVE_DEADLINE.switchover })),
  );
}

function failIfBroken(mirrors: readonly MirrorJob[]): void {
  const broken = mirrors.find((one) => one.error !== undefined);
  if (broken) throw new Error(`disk ${broken.disk} is not in step with its copy: ${broken.error}`);
}

const isDiskFailure = (event: QmpEvent): boolean => moveEvent(event)?.kind === "disk-failed";

const endsDisk =
  (disk: string) =>
  (event: QmpEvent): boolean => {
    const what = moveEvent(event);
    if (what?.kind === "disk-failed") return what.disk === disk;
    return event.name === "BLOCK_JOB_COMPLETED" && event.data["device"] === nameOf(disk);
  };
