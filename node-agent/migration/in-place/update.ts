/**
 * A guest gets another QEMU on this node: both sides of a move in one agent. Sees, asks what it may do (decide.ts), does it, and waits for
 * news. Processes are the driver's.
 */
import type { Handover, Migration } from "../../../crds/migration.ts";
import { errorText } from "../../errors.ts";
import type { UpdateDriver, UpdateState } from "../../instance/update.ts";
import type { RecordWrite } from "../handover/types.ts";
import { firstMoments } from "../first-moments.ts";
import { Known } from "../known.ts";
import type { MoveNote, Why } from "../notes.ts";
import { whyOf, type SideParts } from "../parts.ts";
import { instanceOf } from "../target/prepare.ts";
import { Alarm, underwayOf, Wake, type Underway } from "../underway.ts";
import { tooLong, toldWhy, unwanted } from "../wishes.ts";
import { decideUpdate, type UpdateAction, type UpdateMark, type UpdateView, type UpdateWork } from "./decide.ts";
import { disksHere, requireRuntime, updatePlan, type RuntimeFacts } from "./machine.ts";
import { UpdateWords } from "./words.ts";

/** What does not answer is asked again after this; so is a new QEMU whose end nobody would tell. */
const ASK_AGAIN_MS = 1_000;
/** So often in a row; then it is given up, as long as that may be. */
const MOST_SILENCE = 3;
/** An agent that is told to end does not leave a guest that stands still. */
const LAST_SECONDS_MS = 8_000;

export interface UpdateParts extends SideParts {
  updates: UpdateDriver;
  /** Undefined: this runtime is not on the node. */
  runtimeFacts: (version: string) => Promise<RuntimeFacts | undefined>;
  /** For a Migration that says nothing of it. */
  maxPauseMs: number;
}

/** Only one of these is under way at a time. */
const WORK: Record<UpdateWork, string> = {
  prepare: "starting another QEMU",
  switch: "handing the guest over to another QEMU",
  run: "letting the guest run in its new QEMU",
  finish: "ending the old QEMU",
  restore: "ending the new QEMU",
};

export class UpdateMove {
  readonly #parts: UpdateParts;
  readonly #wake = new Wake();
  readonly #underway: Underway;
  readonly #words: UpdateWords;
  readonly #known: Known;
  readonly #alarm: Alarm;
  readonly #preparing = new AbortController();
  #out: Why | undefined;
  #qemu: UpdateState | undefined;
  #silence = 0;
  #restored = false;
  #tidy = false;
  #moments: Promise<void> | undefined;

  constructor(parts: UpdateParts, note: MoveNote, migration: Migration) {
    this.#parts = parts;
    this.#known = new Known(parts, note, migration);
    this.#alarm = new Alarm(parts.clock, () => this.#wake.call());
    this.#words = new UpdateWords({ ...parts, note: () => this.note, migration: () => this.#known.migration });
    this.#out = note.why;
    this.#underway = underwayOf(note, parts, () => this.#wake.call());
  }

  get note(): MoveNote {
    return this.#known.note;
  }

  /** Whether the guest stands still, or will at once, or is the new QEMU's but not said to be: nothing else should be done with it. */
  get switching(): boolean {
    return this.note.mark !== "none" || this.#qemu === "held" || this.#qemu === "new" || this.#underway.has(WORK.switch);
  }

  /** As Known.news. */
  news(migration: Migration | undefined, record?: Handover): void {
    this.#known.news(migration, record);
    this.#wake.call();
  }

  /** Resolves when it is over here (true) or the signal aborts (false); all goes on in the next life of the agent. */
  async run(signal: AbortSignal): Promise<boolean> {
    const { updates, clock } = this.#parts;
    const unwatch = updates.onUpdate(this.note.instance.uid, () => this.#wake.call());
    const aborted = (): void => {
      this.#preparing.abort(new Error("the agent ends"));
      this.#wake.call();
    };
    signal.addEventListener("abort", aborted);
    let abortedAt: number | undefined;
    try {
      for (;;) {
        this.#alarm.clear();
        if (signal.aborted) {
          abortedAt ??= clock.monotonic();
          const left = abortedAt + LAST_SECONDS_MS - clock.monotonic();
          if (!this.#guestWaits() || left <= 0) return false;
          this.#alarm.in(left);
        }
        // Whoever works on the processes wakes us when that is done; a cancel ends the waiting for a start.
        const view = this.#works() ? undefined : await this.#look();
        if (view === undefined) this.#heed();
        else {
          // an agent that died in them has left nobody for the guest agent's answer
          if (view.qemu === "new") void this.#firstMoments();
          const again = await this.#act(decideUpdate(view));
          if (again === "over") return true;
          if (again) continue;
        }
        await this.#wake.wait();
      }
    } finally {
      signal.removeEventListener("abort", aborted);
      this.#preparing.abort(new Error("the move has ended"));
      unwatch();
      this.#alarm.clear();
      await this.#underway.close();
    }
  }

  #works(): boolean {
    return Object.values(WORK).some((key) => this.#underway.has(key));
  }

  #guestWaits(): boolean {
    return this.#underway.has(WORK.switch) || this.#underway.has(WORK.run) || this.#qemu === "held";
  }

  /** While a start is under way. */
  #heed(): void {
    this.#out ??= this.#reasonToLeave(undefined);
    if (this.#out !== undefined || this.#known.isGivenUp)
      this.#preparing.abort(new Error(this.#out?.message ?? "it was given up"));
  }

  async #look(): Promise<UpdateView | undefined> {
    const { log } = this.#parts;
    const { attempt, mark, instance } = this.note;
    try {
      this.#qemu = await this.#parts.updates.state(instance.uid);
      this.#silence = 0;
    } catch (error) {
      this.#silence += 1;
      log.warn({ instance: instance.name, error: errorText(error) }, "QEMU does not say how far its guest is");
      this.#alarm.in(ASK_AGAIN_MS);
      if (this.#silence < MOST_SILENCE || mark === "Switched") return undefined;
      // It has not been let run. Whatever it does: it ends, and the old one goes on.
      this.#leave(SILENT);
      this.#qemu = "held";
    }
    const qemu = this.#qemu;
    if (qemu === "ready" || qemu === "held") this.#alarm.in(ASK_AGAIN_MS);
    this.#out ??= this.#reasonToLeave(qemu);
    return {
      attempt,
      record: this.#known.record,
      qemu,
      note: markOf(mark),
      wantsOut: this.#out !== undefined,
      restored: this.#restored,
      leftovers: !this.#tidy,
    };
  }

  /** What others want, or do not do; from the guest's stop on only forward. */
  #reasonToLeave(qemu: UpdateState | undefined): Why | undefined {
    const { mark, since } = this.note;
    if (this.#known.isDone || this.#known.isGivenUp || mark === "Switched" || qemu === "held" || qemu === "new") return undefined;
    if (qemu === "gone") return { reason: "GuestEnded", message: "the guest ended while it got another QEMU", retryable: true };
    const { migration } = this.#known;
    const wish = unwanted(migration);
    if (wish !== undefined) return wish;
    const timeoutMs = migration.status?.policy?.timeoutMs;
    if (timeoutMs === undefined || this.#known.state === "Handover") return undefined;
    const left = since + timeoutMs - this.#parts.clock.now();
    if (left <= 0) return tooLong("it", timeoutMs);
    this.#alarm.in(left + 1);
    return undefined;
  }

  /** Does what is decided: what takes long goes on in the background. True: look again at once. */
  async #act(actions: readonly UpdateAction[]): Promise<boolean | "over"> {
    for (const action of actions) {
      if (action.do === "note") return this.#promise(action.note);
      if (action.do === "over") {
        await this.#finish();
        return "over";
      }
      this.#begin(action);
    }
    return false;
  }

  /** In the background; what is under way already is not begun again. */
  #begin(action: RecordWrite | { readonly do: UpdateWork }): void {
    const { checkpoint } = this.#parts;
    if (action.do === "write") {
      const { from, to } = action;
      this.#underway.start(`writing the record (${from.state} to ${to.state})`, async () => {
        if (to.state === "Handover") await checkpoint("update", "write-handover");
        if (to.state === "Done") await checkpoint("update", "write-done");
        await this.#known.write(action);
      });
      return;
    }
    const work: Record<UpdateWork, () => Promise<void>> = {
      prepare: () => this.#trying(() => this.#prepare()),
      switch: () => this.#trying(() => this.#switch()),
      run: () => this.#letRun(),
      finish: () => this.#end(),
      restore: () => this.#restore(),
    };
    const { do: what } = action;
    this.#tidy = false;
    this.#restored = false;
    this.#underway.start(WORK[what], work[what]);
  }

  /** What fails here is given up. */
  async #trying(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (this.note.mark === "Switched") throw error;
      if (!this.#preparing.signal.aborted) this.#leave(whyOf(error, "UpdateFailed"));
    }
  }

  async #prepare(): Promise<void> {
    const { driver, pools, updates, checkpoint, runtimeFacts } = this.#parts;
    const { instance: ref, runtime } = this.note;
    this.#words.source({ state: "Waiting", progress: "0%" });
    this.#words.target({ state: "Preparing" });
    const [instance, facts] = await Promise.all([
      instanceOf(this.#parts, this.note),
      runtime === undefined ? undefined : runtimeFacts(runtime),
    ]);
    requireRuntime(runtime, facts, { machineType: instance.status?.guest?.machineType });
    const identity = await driver.prepare({ instanceUid: ref.uid, namespace: ref.namespace, name: ref.name });
    const disks = await disksHere(instance, pools);
    await checkpoint("update", "prepare");
    await updates.prepare(updatePlan(instance, { identity, disks, runtimeVersion: runtime }), this.#preparing.signal);
    this.#words.target({ state: "Ready" });
  }

  async #switch(): Promise<void> {
    const { updates, checkpoint, maxPauseMs } = this.#parts;
    await checkpoint("update", "switch");
    this.#words.source({ state: "SwitchingOver" });
    const switched = await this.#known.stageNote((note) => ({ ...note, mark: "Switched" }));
    this.#words.hold(true);
    try {
      await updates.switchOver(this.note.instance.uid, {
        maxPauseMs: this.#known.migration.status?.policy?.maxPauseMs ?? maxPauseMs,
        noted: async (stillThere) => {
          await checkpoint("update", "note");
          stillThere();
          await switched();
          await checkpoint("update", "run");
        },
      });
      this.#qemu = "new";
      this.#words.ran();
      await this.#firstMoments();
    } finally {
      this.#words.hold(false);
    }
  }

  /** Once in the agent's life. */
  #firstMoments(): Promise<void> {
    return (this.#moments ??= firstMoments(this.#parts.driver, this.note.instance.uid));
  }

  async #letRun(): Promise<void> {
    const { updates, checkpoint } = this.#parts;
    await checkpoint("update", "run");
    await updates.run(this.note.instance.uid);
    this.#qemu = "new";
    this.#words.ran();
  }

  async #end(): Promise<void> {
    const { updates, checkpoint } = this.#parts;
    await checkpoint("update", "release");
    await updates.finish(this.note.instance.uid);
    this.#tidy = true;
  }

  async #restore(): Promise<void> {
    await this.#parts.updates.giveUp(this.note.instance.uid);
    this.#restored = true;
    this.#tidy = true;
  }

  /** Noted before it counts. False: it could not be noted, such as on a full disk; tried again. */
  async #promise(mark: Exclude<UpdateMark, "none">): Promise<boolean> {
    const { checkpoint, log } = this.#parts;
    const about = { migration: this.note.migration.name };
    if (mark === "Switched") await checkpoint("update", "note");
    const why = mark === "GivingUp" ? this.#leave(BROKEN) : undefined;
    try {
      await this.#known.writeNote((note) => ({ ...note, mark, ...(why === undefined ? {} : { why }) }));
    } catch (error) {
      log.error({ ...about, error: errorText(error) }, "a move's note cannot be written; trying again");
      this.#alarm.in(ASK_AGAIN_MS);
      return false;
    }
    if (why !== undefined) log.warn({ ...about, ...why }, "the guest keeps its QEMU");
    return true;
  }

  async #finish(): Promise<void> {
    const { notes, metrics, clock, log } = this.#parts;
    const done = this.#known.isDone;
    if (done) {
      this.#words.target({ state: "Running" });
      this.#words.source({ state: "Released", progress: "100%" });
    } else {
      const why = this.#out ?? this.note.why;
      this.#words.target({ state: "Released" });
      this.#words.source({ state: "GivenUp", ...toldWhy(why) });
    }
    await notes.remove(this.note);
    metrics.ended("source", done ? "moved" : "given-up");
    log.info(
      { migration: this.note.migration.name, attempt: this.note.attempt, tookMs: Math.round(clock.now() - this.note.since) },
      done ? "the guest has another QEMU" : "the guest keeps its QEMU",
    );
  }

  #leave(why: Why): Why {
    return (this.#out ??= this.note.why ?? why);
  }
}

const markOf = (mark: MoveNote["mark"]): UpdateMark => (mark === "GivingUp" || mark === "Switched" ? mark : "none");

const SILENT: Why = { reason: "MoveBroken", message: "QEMU does not say how far its guest is", retryable: true };
const BROKEN: Why = { reason: "MoveBroken", message: "QEMU could not go on with handing the guest over", retryable: true };
