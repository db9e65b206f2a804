/**
 * A disk goes to another pool of this node: both sides of a move in one agent. Sees, asks what it may do (decide.ts), does it, and
 * waits for news. Copying and exchanging are the driver's.
 */
import { join } from "node:path";
import type { Handover, Migration } from "../../../crds/migration.ts";
import { errorText, UserError } from "../../errors.ts";
import type { HostFacts } from "../../host/index.ts";
import type { MoveEvent } from "../../instance/move.ts";
import type { PoolMoveDriver, PoolMovePlan, PoolMoveState } from "../../instance/pool-move.ts";
import type { NodePaths } from "../../node.ts";
import { Known } from "../known.ts";
import type { MoveNote, Why } from "../notes.ts";
import { whyOf, type SideParts } from "../parts.ts";
import { Seen } from "../seen.ts";
import { failureOf } from "../source/leave.ts";
import { ensureDisks } from "../target/volumes.ts";
import { instanceOf, patiently } from "../target/prepare.ts";
import { Alarm, underwayOf, Wake, type Underway } from "../underway.ts";
import { tooLong, toldWhy, unwanted } from "../wishes.ts";
import { decideLocal, type LocalAction, type LocalMark, type LocalView } from "./decide.ts";
import type { Goes } from "./goes.ts";
import { LocalWords } from "./words.ts";

/** A monitor that does not answer is asked again after this. */
const ASK_AGAIN_MS = 1_000;
/** From the last bytes until both are the same: the guest's writes go on all that time, but for the end of it. */
const COMPLETE_MS = 30_000;
/** An agent that is told to end does not leave a guest that waits to write. */
const LAST_SECONDS_MS = 8_000;

export interface LocalParts extends SideParts {
  disks: PoolMoveDriver;
  hostFacts: () => Promise<HostFacts>;
  paths: NodePaths;
  /** Whether the Instance says that its disk is where it went; one that is gone says nothing else. */
  isTold: (note: MoveNote) => boolean;
}

export class LocalMove {
  readonly #parts: LocalParts;
  readonly #wake = new Wake();
  readonly #underway: Underway;
  readonly #copyStop = new AbortController();
  readonly #words: LocalWords;
  readonly #known: Known;
  readonly #seen: Seen<PoolMoveState>;
  readonly #alarm: Alarm;
  #out: Why | undefined;
  #completing = false;
  #settled = false;
  #cleared = false;

  constructor(parts: LocalParts, note: MoveNote, migration: Migration) {
    this.#parts = parts;
    this.#known = new Known(parts, note, migration);
    this.#seen = new Seen(() => this.#where());
    this.#alarm = new Alarm(parts.clock, () => this.#wake.call());
    this.#words = new LocalWords({ ...parts, note: () => this.note, migration: () => this.#known.migration });
    this.#out = note.why ?? (note.goes === undefined ? NOTHING : undefined);
    this.#underway = underwayOf(note, parts, () => this.#changed());
  }

  get note(): MoveNote {
    return this.#known.note;
  }

  /** Whether the disks are, or will at once be, exchanged: nothing else should be done with the guest now. */
  get switching(): boolean {
    return this.#completing || this.note.mark !== "none";
  }

  /** As Known.news. */
  news(migration: Migration | undefined, record?: Handover): void {
    this.#known.news(migration, record);
    this.#wake.call();
  }

  /** Resolves when it is over here (true) or the signal aborts (false); all goes on in the next life of the agent. */
  async run(signal: AbortSignal): Promise<boolean> {
    const { moves, clock } = this.#parts;
    const unwatch = moves.onMove(this.note.instance.uid, (event) => this.#event(event));
    const aborted = (): void => this.#wake.call();
    signal.addEventListener("abort", aborted);
    let abortedAt: number | undefined;
    const stop = new AbortController();
    try {
      for (;;) {
        this.#alarm.clear();
        if (signal.aborted) {
          abortedAt ??= clock.monotonic();
          const left = abortedAt + LAST_SECONDS_MS - clock.monotonic();
          if (!this.#guestWaits() || left <= 0) return false;
          this.#alarm.in(left);
        }
        const view = await this.#look();
        const again = view !== undefined && (await this.#act(decideLocal(view), stop.signal));
        if (again === "over") return true;
        if (again) continue;
        if (view !== undefined) this.#advance(view, stop.signal);
        await this.#wake.wait();
      }
    } finally {
      signal.removeEventListener("abort", aborted);
      stop.abort();
      unwatch();
      this.#words.stopCounting();
      this.#alarm.clear();
      await this.#underway.close();
    }
  }

  #guestWaits(): boolean {
    const disk = this.#seen.state;
    return disk === "pending" || (this.#completing && disk === undefined) || this.#underway.has(COMPLETING);
  }

  async #look(): Promise<LocalView | undefined> {
    let disk: PoolMoveState;
    try {
      disk = await this.#seen.look();
    } catch (error) {
      this.#parts.log.warn({ instance: this.note.instance.name, error: errorText(error) }, "QEMU does not say how its disk is");
      this.#alarm.in(ASK_AGAIN_MS);
      return undefined;
    }
    const { attempt, mark } = this.note;
    this.#out ??= this.#reasonToLeave(disk);
    return {
      attempt,
      record: this.#known.record,
      disk,
      note: markOf(mark),
      wantsOut: this.#out !== undefined,
      settled: this.#settled,
      leftovers: !this.#cleared,
    };
  }

  async #where(): Promise<PoolMoveState> {
    const { cold, mark, goes, instance } = this.note;
    // What does not run is where the note says.
    if (cold === true && mark === "Pivoting") return "gone";
    // The record says where it is; the guest may be another one's business by now.
    if (goes === undefined || this.#known.isDone) return "old";
    return this.#parts.disks.state(instance.uid, await this.#plan(goes));
  }

  /** What others want, or do not do; from the exchange on only forward. */
  #reasonToLeave(disk: PoolMoveState): Why | undefined {
    const { mark, since } = this.note;
    if (this.#known.isDone || this.#known.isGivenUp || mark === "Pivoting" || disk === "pending" || disk === "new")
      return undefined;
    if (disk === "gone") return { reason: "GuestEnded", message: "the guest ended while its disk was moved", retryable: true };
    const { migration } = this.#known;
    const wish = unwanted(migration);
    if (wish !== undefined) return wish;
    const timeoutMs = migration.status?.policy?.timeoutMs;
    if (timeoutMs === undefined || this.#completing) return undefined;
    const left = since + timeoutMs - this.#parts.clock.now();
    if (left <= 0) return tooLong("copying", timeoutMs);
    this.#alarm.in(left + 1);
    return undefined;
  }

  /** Does what is decided: what takes long goes on in the background. True: look again at once. */
  async #act(actions: readonly LocalAction[], signal: AbortSignal): Promise<boolean | "over"> {
    for (const action of actions) {
      if (action.do === "note") {
        await this.#promise(action.note);
        return true;
      }
      if (action.do === "over") return (await this.#finish()) ? "over" : false;
      this.#begin(action, signal);
    }
    return false;
  }

  /** In the background; what is under way already is not begun again. */
  #begin(action: LocalAction, signal: AbortSignal): void {
    const { disks, pools, checkpoint } = this.#parts;
    const { instance, goes } = this.note;
    const { uid } = instance;
    switch (action.do) {
      case "note":
      case "over":
        return;
      case "write":
        this.#underway.start(`writing the record (${action.from.state} to ${action.to.state})`, async () => {
          if (action.to.state === "Handover") await checkpoint("local", "write-handover");
          if (action.to.state === "Done") await checkpoint("local", "write-done");
          await this.#known.write(action);
        });
        return;
      case "complete":
        if (goes === undefined) return;
        this.#underway.start(COMPLETING, async () => {
          await checkpoint("local", "complete");
          this.#completing = true;
          this.#words.source({ state: "SwitchingOver" });
          try {
            await disks.complete(uid, await this.#plan(goes), AbortSignal.any([signal, AbortSignal.timeout(COMPLETE_MS)]));
          } catch (error) {
            if (!signal.aborted) this.#leave(whyOf(error, "DiskCopyFailed"));
          }
        });
        return;
      case "pivot":
        if (goes === undefined) return;
        this.#underway.start("exchanging the disk", async () => {
          await checkpoint("local", "pivot");
          await disks.pivot(uid, await this.#plan(goes));
        });
        return;
      case "settle":
        if (goes === undefined) return;
        this.#underway.start("taking the guest over into its new claim", () => this.#settle(goes));
        return;
      case "cancel":
      case "destroyNew":
        this.#copyStop.abort();
        if (this.#underway.has(COPYING) || this.#underway.has(COMPLETING)) return;
        this.#underway.start("giving the copy up", async () => {
          if (goes !== undefined) await disks.giveUp(uid, await this.#plan(goes));
          if (action.do === "cancel") return;
          if (goes !== undefined) await pools.removeVolume({ pool: goes.to, instanceUid: uid, disk: goes.disk });
          this.#cleared = true;
        });
        return;
      case "destroyOld":
        this.#underway.start("removing the old disk", async () => {
          await checkpoint("local", "release");
          if (goes !== undefined) await pools.removeVolume({ pool: goes.from, instanceUid: uid, disk: goes.disk });
          this.#cleared = true;
        });
    }
  }

  async #settle(goes: Goes): Promise<void> {
    const { disks, checkpoint, log } = this.#parts;
    const { name, uid } = this.note.instance;
    await checkpoint("local", "settle");
    try {
      await disks.settle(uid, await this.#plan(goes));
    } catch (error) {
      // Its ordinary controller shuts a guest down whose claim was lost, and starts it in another one.
      if (!(error instanceof UserError) || error.reason !== "ClaimCgroupMissing") throw error;
      log.warn({ instance: name, error: errorText(error) }, "the claim that the guest was to belong to is gone");
    }
    this.#settled = true;
  }

  /** Noted for good before it counts. */
  async #promise(mark: Exclude<LocalMark, "none">): Promise<void> {
    const { checkpoint, log } = this.#parts;
    if (mark === "Pivoting") await checkpoint("local", "note");
    const why = mark === "GivingUp" ? this.#leave(BROKEN) : undefined;
    await this.#known.writeNote((note) => ({ ...note, mark, ...(why === undefined ? {} : { why }) }));
    if (why !== undefined) log.warn({ migration: this.note.migration.name, ...why }, "the move is given up");
  }

  async #finish(): Promise<boolean> {
    const { notes, metrics, clock, log } = this.#parts;
    const done = this.#known.isDone;
    if (done) {
      this.#words.target({ state: "Running" });
      this.#words.source({ state: "Released", progress: "100%" });
      // Until the Instance names its new place, its ordinary controller would look for the disk in the old one.
      if (!this.#parts.isTold(this.note)) return false;
    } else {
      const why = this.#out ?? this.note.why;
      this.#words.target({ state: "Released" });
      this.#words.source({ state: "GivenUp", ...toldWhy(why) });
    }
    this.#parts.disks.forget(this.note.instance.uid);
    await notes.remove(this.note);
    metrics.ended("source", done ? "moved" : "given-up");
    log.info(
      { migration: this.note.migration.name, attempt: this.note.attempt, tookMs: Math.round(clock.now() - this.note.since) },
      done ? "the disk is in its new pool" : "the disk stays in its pool",
    );
    return true;
  }

  /** Copies while nothing is decided yet. */
  #advance({ disk, note, wantsOut }: LocalView, signal: AbortSignal): void {
    const { goes } = this.note;
    const copying = disk === "old" || disk === "copying";
    if (goes === undefined || note !== "none" || wantsOut || !copying) return;
    if (this.#known.state !== "Copying" || this.#underway.has(COPYING)) return;
    const both = AbortSignal.any([signal, this.#copyStop.signal]);
    this.#underway.start(COPYING, async () => {
      try {
        await this.#copy(goes, both);
      } catch (error) {
        if (!both.aborted) this.#leave(whyOf(error, "DiskCopyFailed"));
      }
    });
  }

  async #copy(goes: Goes, signal: AbortSignal): Promise<void> {
    const { driver, pools, disks, checkpoint, clock } = this.#parts;
    const { uid, namespace, name } = this.note.instance;
    const say = (message: string): void => this.#words.target({ state: "Preparing", message });
    this.#words.target({ state: "Preparing" });
    const instance = await instanceOf(this.#parts, this.note);
    const identity = await driver.prepare({ instanceUid: uid, namespace, name });
    const wanted = [{ name: goes.disk, sourcePool: goes.from, targetPool: goes.to, sizeBytes: goes.sizeBytes, copy: true }];
    await patiently({ clock, say, signal }, () => ensureDisks(pools, instance, wanted, identity, signal));
    this.#words.target({ state: "Ready" });
    this.#words.source({ state: "CopyingDisk" });
    await checkpoint("local", "copy-disks");
    this.#words.startCounting();
    try {
      await disks.copy(uid, await this.#plan(goes), signal);
    } finally {
      this.#words.stopCounting();
    }
  }

  async #plan({ disk, sizeBytes, from, to, claimUid }: Goes): Promise<PoolMovePlan> {
    const { paths, hostFacts } = this.#parts;
    const place = (pool: string) => ({ pool, path: join(paths.volumes(pool, this.note.instance.uid), `${disk}.raw`) });
    const { runtimeVersion } = await hostFacts();
    const { maxBytesPerSecond } = this.#known.migration.status?.policy ?? {};
    return { disk, sizeBytes, from: place(from), to: place(to), claimUid, maxBytesPerSecond, runtimeVersion };
  }

  #event(event: MoveEvent): void {
    if (event.kind === "round") return;
    const failure = event.kind === "disk-failed" && this.note.mark === "none" ? failureOf(event) : undefined;
    if (failure !== undefined) this.#leave(failure);
    this.#changed();
  }

  #changed(): void {
    this.#seen.forget();
    this.#wake.call();
  }

  #leave(why: Why): Why {
    return (this.#out ??= this.note.why ?? why);
  }
}

const markOf = (mark: MoveNote["mark"]): LocalMark => (mark === "GivingUp" || mark === "Pivoting" ? mark : "none");

const COPYING = "copying the disk";
const COMPLETING = "bringing both disks in step";
const NOTHING: Why = { reason: "NothingToMove", message: "no disk of the instance would change its pool", retryable: false };
const BROKEN: Why = { reason: "MoveBroken", message: "QEMU could not go on with the copying of the disk", retryable: true };
