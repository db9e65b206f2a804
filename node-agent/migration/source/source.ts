/**
 * The source's side of one attempt: sees, asks what it may do (handover/source.ts), does it, and waits for news. What copies and when it
 * is enough is copying.ts, that QEMU may stop the guest stopping.ts, the pause pause.ts, the connection line.ts, why it is given up leave.ts,
 * what follows by post-copy rest.ts; who owns the guest is decided nowhere but in handover/.
 */
import type { Handover, Migration, MigrationSource } from "../../../crds/migration.ts";
import { errorText } from "../../errors.ts";
import type { MoveEvent, OutgoingState } from "../../instance/move.ts";
import type { TargetMessage } from "../channel/messages.ts";
import { decideSource } from "../handover/source.ts";
import type { SourceAction, SourceView } from "../handover/types.ts";
import { Known } from "../known.ts";
import type { MoveNote, Why } from "../notes.ts";
import { whyOf, type SideParts } from "../parts.ts";
import { Seen } from "../seen.ts";
import { Alarm, underwayOf, Wake, type Underway } from "../underway.ts";
import { toldWhy } from "../wishes.ts";
import { Copying } from "./copying.ts";
import { broken, failureOf, reasonToLeave, standsStill, SWITCH_MS, targetGaveUp } from "./leave.ts";
import { Line } from "./line.ts";
import { Pause, type TargetRan } from "./pause.ts";
import { Rest } from "./rest.ts";
import { Stopping } from "./stopping.ts";

/** A monitor that does not answer is asked again after this. */
const ASK_AGAIN_MS = 1_000;
/** An agent that is told to end finishes a switchover first, if that is a matter of seconds. */
const LAST_SECONDS_MS = 8_000;

export interface SourceParts extends SideParts {
  /** Undoes what is left of the guest here; disks that were copied included. */
  destroy: (note: MoveNote, migration: Migration, signal: AbortSignal) => Promise<void>;
  /** Whether the Instance still names this node and the claim that it leaves. */
  livesHere: (note: MoveNote, migration: Migration) => boolean;
}

export class SourceMove {
  readonly #parts: SourceParts;
  readonly #wake = new Wake();
  readonly #underway: Underway;
  readonly #copying: Copying;
  readonly #known: Known;
  readonly #seen: Seen<OutgoingState>;
  readonly #line: Line;
  readonly #rest: Rest;
  readonly #pause: Pause;
  readonly #stopping: Stopping;
  #out: Why | undefined;
  #destroyed = false;
  /** Nothing of a move that was given up is left in QEMU. */
  #cleared = false;
  readonly #alarm: Alarm;

  constructor(parts: SourceParts, note: MoveNote, migration: Migration) {
    this.#parts = parts;
    this.#known = new Known(parts, note, migration);
    this.#seen = new Seen(() => parts.moves.outgoing(note.instance.uid));
    this.#out = note.why;
    this.#pause = new Pause(parts, note.stoppedAt);
    this.#alarm = new Alarm(parts.clock, () => this.#wake.call());
    this.#underway = underwayOf(note, parts, () => this.#changed());
    const now = { note: () => this.note, migration: () => this.#known.migration };
    this.#line = new Line({
      ...parts,
      ...now,
      hear: (message) => this.#hear(message),
      changed: () => {
        this.#copying.nudge();
        this.#wake.call();
      },
    });
    this.#copying = new Copying({
      ...parts,
      ...now,
      writeNote: (change) => this.#known.writeNote(change),
      caller: () => this.#line.call(),
      say: (words) => this.#say(words),
      changed: () => this.#changed(),
      switching: () => this.#pause.allowedAt !== undefined,
      pausing: () => this.#pause.stoppedAt !== undefined,
    });
    this.#stopping = new Stopping({
      ...parts,
      underway: this.#underway,
      note: now.note,
      writeNote: (change) => this.#known.writeNote(change),
      maxPauseMs: () => this.#known.migration.status?.policy?.maxPauseMs ?? DEFAULT_PAUSE_MS,
      wantsPostCopy: () => this.#copying.postCopy,
      allowed: () => {
        this.#say({ state: "SwitchingOver" });
        parts.reporter.hold(this.#known.ref, "source", true);
        this.#pause.allow();
      },
    });
    this.#rest = new Rest({
      ...parts,
      instanceUid: note.instance.uid,
      underway: this.#underway,
      caller: () => this.#line.call(),
      say: (words) => this.#say({ ...words, state: "Completed" }),
      unhold: () => parts.reporter.hold(note.migration, "source", false),
      later: (ms) => this.#alarm.in(ms),
    });
  }

  /** Whether the guest is in, or near, its pause: nothing else should be done with it now. */
  get switching(): boolean {
    return this.#pause.allowedAt !== undefined || this.note.mark === "Gone";
  }

  get note(): MoveNote {
    return this.#known.note;
  }

  /** As Known.news. */
  news(migration: Migration | undefined, record?: Handover): void {
    this.#known.news(migration, record);
    this.#copying.nudge();
    this.#wake.call();
  }

  /** Resolves when this side is settled (true) or the signal aborts (false); all goes on in the next life of the agent. */
  async run(signal: AbortSignal): Promise<boolean> {
    const { moves, clock } = this.#parts;
    const { uid } = this.note.instance;
    const unwatch = moves.onMove(uid, (event) => this.#event(event));
    const aborted = (): void => this.#wake.call();
    signal.addEventListener("abort", aborted);
    let abortedAt: number | undefined;
    const stop = new AbortController();
    try {
      for (;;) {
        this.#alarm.clear();
        if (signal.aborted) {
          abortedAt ??= clock.monotonic();
          const finishing = this.#pause.stoppedAt !== undefined && !this.#pause.over;
          const left = abortedAt + LAST_SECONDS_MS - clock.monotonic();
          if (!finishing || left <= 0) return false;
          this.#alarm.in(left);
        }
        const view = await this.#look();
        const again = view !== undefined && (await this.#act(decideSource(view), stop.signal));
        if (again === "settled") return true;
        if (again) continue;
        if (view !== undefined) this.#advance(view, stop.signal);
        await this.#wake.wait();
      }
    } finally {
      signal.removeEventListener("abort", aborted);
      stop.abort();
      unwatch();
      this.#alarm.clear();
      this.#copying.stop();
      await this.#line.close();
      await this.#underway.close();
    }
  }

  async #look(): Promise<SourceView | undefined> {
    // A guest that has left is not asked any more: its QEMU is about to end, or has.
    if (this.#known.isDone) {
      if (this.#seen.state === undefined) this.#seen.set("complete");
      // Its word was lost: what the record says is as good, if later.
      this.#ran(undefined);
    }
    let qemu: OutgoingState;
    try {
      qemu = await this.#seen.look();
    } catch (error) {
      this.#parts.log.warn({ instance: this.note.instance.name, error: errorText(error) }, "QEMU does not say how its move is");
      this.#alarm.in(ASK_AGAIN_MS);
      return undefined;
    }
    const mark = this.note.mark;
    return {
      attempt: this.note.attempt,
      record: this.#known.record,
      qemu: qemu === "draining" ? "complete" : qemu,
      owes: qemu === "draining",
      note: mark === "GivingUp" || mark === "Gone" ? mark : "none",
      link: this.#line.isUp({ still: standsStill(qemu), ran: this.#pause.over }, this.#alarm) ? "up" : "down",
      wants: this.#wants(qemu),
      leftovers: !this.#destroyed,
    };
  }

  #wants(qemu: OutgoingState): SourceView["wants"] {
    this.#out ??= this.#reasonToLeave(qemu);
    if (this.#out !== undefined) return "out";
    return this.#copying.fits && (this.#line.open || this.#pause.allowedAt !== undefined) ? "switch" : "nothing";
  }

  #reasonToLeave(qemu: OutgoingState): Why | undefined {
    if (this.#known.isGivenUp || this.#known.isDone) return undefined;
    const { allowedAt } = this.#pause;
    const allowedForMs = allowedAt === undefined ? undefined : this.#parts.clock.monotonic() - allowedAt;
    if (allowedForMs !== undefined && !standsStill(qemu)) this.#alarm.in(Math.max(0, SWITCH_MS - allowedForMs));
    const { attempt } = this.note;
    return reasonToLeave({ attempt, qemu, migration: this.#known.migration, failed: this.#copying.failed, allowedForMs });
  }

  /** Does what is decided: what takes long goes on in the background. True: look again at once. */
  async #act(actions: readonly SourceAction[], signal: AbortSignal): Promise<boolean | "settled"> {
    for (const action of actions) {
      if (action.do === "note") {
        await this.#promise(action.note);
        return true;
      }
      if (action.do === "settled") return (await this.#settle()) ? "settled" : false;
      if (action.do === "sendGo") await this.#line.sendGo(() => this.#pause.mark("go-sent"));
      else this.#begin(action, signal);
    }
    return false;
  }

  /** In the background; what is under way already is not begun again. */
  #begin(action: SourceAction, signal: AbortSignal): void {
    const { moves, driver, checkpoint } = this.#parts;
    const { uid } = this.note.instance;
    switch (action.do) {
      case "note":
      case "settled":
      case "sendGo":
        return;
      case "write":
        this.#underway.start(`writing the record (${action.from.state} to ${action.to.state})`, async () => {
          if (action.to.state === "Handover") await checkpoint("source", "write-handover");
          await this.#known.write(action);
        });
        return;
      case "allowPause":
        this.#stopping.go();
        return;
      case "finish":
        this.#underway.start("the switchover", async () => {
          await checkpoint("source", "held");
          try {
            await moves.finish(uid, AbortSignal.any([signal, AbortSignal.timeout(SWITCH_MS)]));
            // By post-copy the rest of the memory may still be here; else nothing needs to be asked.
            if (this.note.postCopy === true) this.#changed();
            else this.#set("complete");
          } catch (error) {
            if (!signal.aborted) this.#leave(whyOf(error, "SwitchoverFailed"));
          }
        });
        return;
      case "cancel":
      case "resume":
        // Whoever only follows the record has no reason of its own.
        if (!this.#known.isGivenUp) this.#leave(broken(this.#seen.state, this.#line.trouble));
        this.#underway.start("giving the move up", async () => {
          this.#copying.stop();
          await moves.giveUp(uid);
          this.#cleared = true;
          this.#runsAgain();
        });
        return;
      case "bootAgain":
        this.#underway.start("ending the guest's other half", () => driver.stop(uid, { mode: "force", deadlineMs: 0 }, signal));
        return;
      case "destroy":
        // What it has to say of its pause goes with it.
        if (this.#underway.has(LAST_FIGURES) || this.#underway.has(LETTING_GO)) return;
        this.#underway.start("removing what is left here", async () => {
          await checkpoint("source", "release");
          await this.#parts.destroy(this.note, this.#known.migration, signal);
          this.#destroyed = true;
        });
    }
  }

  /** Noted for good before it counts. */
  async #promise(mark: "GivingUp" | "Gone"): Promise<void> {
    const { checkpoint } = this.#parts;
    if (mark === "Gone") await checkpoint("source", "complete");
    const why = mark === "GivingUp" ? this.#leave(broken(this.#seen.state, this.#line.trouble)) : undefined;
    const stoppedAt = this.#pause.stoppedAt === undefined ? {} : { stoppedAt: this.#pause.stoppedAt };
    await this.#known.writeNote((note) => ({ ...note, ...stoppedAt, mark, ...(why === undefined ? {} : { why }) }));
    if (mark === "Gone") this.#pause.mark("gone-noted");
    if (why !== undefined) {
      this.#parts.log.warn({ migration: this.note.migration.name, ...why }, "the move is given up");
      this.#line.tell({ type: "gave-up", ...why, message: why.message.slice(0, 4_000) });
    }
  }

  async #settle(): Promise<boolean> {
    const { notes, metrics, clock } = this.#parts;
    const done = this.#known.isDone;
    // A copy of the disks alone is no move for QEMU, yet it leaves a job, a node and a key behind; and where QEMU is gone, what is
    // remembered of it would be taken for that of the one after it.
    if (!done && !this.#cleared) {
      this.#underway.start("clearing what is left of the move", async () => {
        this.#copying.stop();
        await this.#parts.moves.giveUp(this.note.instance.uid);
        this.#cleared = true;
      });
      return false;
    }
    this.#parts.reporter.hold(this.#known.ref, "source", false);
    if (done) {
      this.#say({ state: "Released" });
      // Until the Instance names its new place, its ordinary controller would start it here again.
      if (this.#parts.livesHere(this.note, this.#known.migration)) return false;
    } else {
      const why = this.#out ?? this.note.why;
      this.#say({ state: "GivenUp", ...toldWhy(why) });
    }
    await notes.remove(this.note);
    metrics.ended("source", done ? "moved" : "given-up");
    this.#parts.log.info(
      { migration: this.note.migration.name, attempt: this.note.attempt, tookMs: Math.round(clock.now() - this.note.since) },
      done ? "the guest has left" : "the guest stays",
    );
    return true;
  }

  /** Copies while nothing is decided yet, and keeps the connection. */
  #advance(view: SourceView, signal: AbortSignal): void {
    if (view.note === "none" && this.#known.isOpen && this.#out === undefined) {
      if (view.qemu === "idle" || view.qemu === "copying") this.#copying.go(view.qemu, signal);
    }
    if (view.note !== "Gone" || this.#known.isDone) return;
    this.#line.call();
    const ended = this.#seen.state === "complete" || this.#seen.state === "gone";
    if (this.#seen.state === "draining") this.#rest.keepSending(this.#line.goneBy);
    if (this.note.postCopy === true && ended && this.#line.sendRest(this.#seen.state === "complete"))
      this.#rest.ended(this.#seen.state === "complete");
  }

  #hear(message: TargetMessage): void {
    switch (message.type) {
      case "offer":
        this.#copying.offered(message);
        return;
      case "ran":
        this.#ran(message);
        return;
      case "interrupted":
        this.#rest.interrupted();
        this.#wake.call();
        return;
      case "rest-here":
        this.#rest.send(message);
        return;
      case "refusing":
        this.#wake.call();
        return;
      case "gave-up":
        this.#leave(targetGaveUp(message.message, message.retryable));
        this.#wake.call();
    }
  }

  /** The guest runs at the target: its pause is over. The record follows. */
  #ran(told: TargetRan | undefined): void {
    if (this.#pause.over) return;
    this.#pause.ran(told);
    this.#underway.start(LAST_FIGURES, () => this.#tellPause());
    this.#wake.call();
  }

  async #tellPause(): Promise<void> {
    const { moves, reporter, checkpoint } = this.#parts;
    const { uid } = this.note.instance;
    await checkpoint("source", "ran");
    this.#say({ state: "Completed", ...(await this.#pause.figures(this.note)) });
    reporter.hold(this.#known.ref, "source", false);
    this.#underway.start(LETTING_GO, async () => {
      if ((await moves.outgoing(uid)) === "draining") return;
      await moves.release(uid);
      this.#line.tell({ type: "let-go" });
    });
  }

  #event(event: MoveEvent): void {
    if (event.kind === "stop") this.#pause.stopped(event.at);
    if (event.kind === "round") return this.#copying.round();
    if (event.kind === "disk-ready") return;
    if (event.kind === "held") return this.#set("held");
    // By post-copy it is asked: the guest left before its memory did.
    if (event.kind === "complete" && this.note.postCopy !== true) return this.#set("complete");
    const why = failureOf(event);
    if (why !== undefined) this.#leave(why);
    if (event.kind === "ended") this.#seen.forget();
    if (event.kind === "interrupted") this.#rest.interrupted();
    this.#changed();
  }

  #set(qemu: OutgoingState): void {
    this.#seen.set(qemu);
    this.#wake.call();
  }

  #changed(): void {
    // Complete is for ever, until we ourselves resume it.
    if (this.#seen.state !== "complete") this.#seen.forget();
    this.#wake.call();
  }

  /** The guest runs on here; the next pause is another one. */
  #runsAgain(): void {
    this.#seen.forget();
    this.#pause.forget();
    this.#stopping.forget();
    this.#parts.reporter.hold(this.#known.ref, "source", false);
  }

  #leave(why: Why): Why {
    return (this.#out ??= this.note.why ?? why);
  }

  #say(words: Partial<MigrationSource> & Pick<MigrationSource, "state">): void {
    const { attempt } = this.note;
    const last = this.#parts.reporter.last(this.#known.ref, "source");
    const said = last?.role === "source" ? last.words : this.#known.migration.status?.source;
    const before = said?.attempt === attempt ? said : {};
    this.#parts.reporter.say(this.#known.ref, { role: "source", words: { ...before, ...words, attempt } });
  }
}

const LETTING_GO = "letting go of the target's disks";
const LAST_FIGURES = "reading the last figures";
const DEFAULT_PAUSE_MS = 300;
