/**
 * The source's side of one attempt: sees, asks what it may do (handover/source.ts), does it, and waits for news. What copies
 * and when it is enough is copying.ts; who owns the guest is decided nowhere but in handover/.
 */
import type { Handover, Migration, MigrationSource } from "../../../crds/migration.ts";
import { errorText } from "../../errors.ts";
import type { MoveEvent, OutgoingState } from "../../instance/move.ts";
import { callTarget } from "../channel/client.ts";
import type { TargetMessage } from "../channel/messages.ts";
import { decideSource } from "../handover/source.ts";
import { stateOf, type SourceAction, type SourceView } from "../handover/types.ts";
import type { MoveNote, Why } from "../notes.ts";
import { OwnNote } from "../own-note.ts";
import { whyOf, type MigrationRef, type SideParts } from "../parts.ts";
import { newest, writeRecord } from "../record.ts";
import { Alarm, Underway, Wake } from "../underway.ts";
import { Caller } from "./caller.ts";
import { Copying } from "./copying.ts";
import { Rest } from "./rest.ts";
import { pauseWords, progressWords, type Mark } from "./words.ts";

/** How long the connection may be away while the guest runs: the target's agent may be starting anew. */
const AWAY_MS = 30_000;
/** The same while the guest stands still. */
const AWAY_HELD_MS = 1_000;
/** `go` was sent, and nothing comes back: what the connection says of itself does not count any more. */
const UNANSWERED_MS = 2_000;
/** From the leave to pause until the guest stands still, and from there until all is sent. */
const SWITCH_MS = 30_000;
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
  #caller: Caller | undefined;
  readonly #own: OwnNote;
  #migration: Migration;
  #record: Handover | undefined;
  #qemu: OutgoingState | undefined;
  /** Counts what may have changed QEMU's state: an answer that is older says nothing. */
  #changes = 0;
  #out: Why | undefined;
  #destroyed = false;
  /** Nothing of a move that was given up is left in QEMU. */
  #cleared = false;
  #allowedAt: number | undefined;
  #goAt: number | undefined;
  /** The connection by which it was sent last. */
  #goBy: unknown;
  #stoppedAt: number | undefined;
  #ranAt: number | undefined;
  readonly #alarm: Alarm;
  /** The connection by which it was said that the rest of the memory has left. */
  #restSaid: unknown;
  readonly #rest: Rest;
  readonly #marks: Mark[] = [];

  constructor(parts: SourceParts, note: MoveNote, migration: Migration) {
    this.#parts = parts;
    this.#own = new OwnNote(parts.notes, note);
    this.#migration = migration;
    this.#record = migration.status?.handover;
    this.#out = note.why;
    this.#stoppedAt = note.stoppedAt;
    this.#alarm = new Alarm(parts.clock, () => this.#wake.call());
    const name = { migration: `${note.migration.namespace}/${note.migration.name}`, attempt: note.attempt };
    this.#underway = new Underway({
      clock: parts.clock,
      ended: () => this.#changed(),
      failed: (key, error, count) => {
        if (count === 1) parts.log.warn({ ...name, error: errorText(error) }, `${key} failed; trying again`);
      },
    });
    this.#copying = new Copying({
      ...parts,
      note: () => this.#note,
      migration: () => this.#migration,
      writeNote: (change) => this.#writeNote(change),
      caller: () => this.#call(),
      say: (words) => this.#say(words),
      changed: () => this.#changed(),
      pausing: () => this.#stoppedAt !== undefined,
    });
    this.#rest = new Rest({
      ...parts,
      instanceUid: note.instance.uid,
      underway: this.#underway,
      caller: () => this.#call(),
      say: (words) => this.#say({ ...words, state: "Completed" }),
      unhold: () => parts.reporter.hold(note.migration, "source", false),
      later: (ms) => this.#alarm.in(ms),
    });
  }

  /** Whether the guest is in, or near, its pause: nothing else should be done with it now. */
  get switching(): boolean {
    return this.#allowedAt !== undefined || this.#note.mark === "Gone";
  }

  get note(): MoveNote {
    return this.#note;
  }

  /** The Migration as it is now, or proof that its record says so (`record`) although the object is gone. */
  news(migration: Migration | undefined, record?: Handover): void {
    if (migration !== undefined) this.#migration = migration;
    this.#record = newest(this.#record, record ?? migration?.status?.handover);
    this.#copying.nudge();
    this.#wake.call();
  }

  /** Resolves when this side is settled (true) or the signal aborts (false); all goes on in the next life of the agent. */
  async run(signal: AbortSignal): Promise<boolean> {
    const { moves, clock } = this.#parts;
    const { uid } = this.#note.instance;
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
          const finishing = this.#stoppedAt !== undefined && this.#ranAt === undefined;
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
      await this.#caller?.close("this agent ends; another one follows");
      await this.#underway.close();
    }
  }

  async #look(): Promise<SourceView | undefined> {
    // A guest that has left is not asked any more: its QEMU is about to end, or has.
    if (this.#isDone()) {
      this.#qemu ??= "complete";
      // Its word was lost: what the record says is as good, if later.
      if (this.#stoppedAt !== undefined) this.#ran([]);
    }
    if (this.#qemu === undefined) {
      const changes = this.#changes;
      try {
        const found = await this.#parts.moves.outgoing(this.#note.instance.uid);
        if (changes !== this.#changes) return this.#look();
        this.#qemu = found;
      } catch (error) {
        this.#parts.log.warn(
          { instance: this.#note.instance.name, error: errorText(error) },
          "QEMU does not say how its move is",
        );
        this.#alarm.in(ASK_AGAIN_MS);
        return undefined;
      }
    }
    const qemu = this.#qemu;
    const mark = this.#note.mark;
    return {
      attempt: this.#note.attempt,
      record: this.#record,
      qemu: qemu === "draining" ? "complete" : qemu,
      owes: qemu === "draining",
      note: mark === "GivingUp" || mark === "Gone" ? mark : "none",
      link: this.#linkIsUp(qemu) ? "up" : "down",
      wants: this.#wants(qemu),
      leftovers: !this.#destroyed,
    };
  }

  #isGivenUp(): boolean {
    return stateOf(this.#record, this.#note.attempt) === "Source";
  }

  #isDone(): boolean {
    return this.#record?.attempt === this.#note.attempt && this.#record.state === "Done";
  }

  #wants(qemu: OutgoingState): SourceView["wants"] {
    this.#out ??= this.#reasonToLeave(qemu);
    if (this.#out !== undefined) return "out";
    return this.#copying.fits && (this.#caller?.open === true || this.#allowedAt !== undefined) ? "switch" : "nothing";
  }

  /** What others want, or do not do. A guest that stands still is not given up for a user's change of mind. */
  #reasonToLeave(qemu: OutgoingState): Why | undefined {
    if (this.#isGivenUp() || this.#isDone()) return undefined;
    const { spec, metadata, status } = this.#migration;
    if (standsStill(qemu)) return undefined;
    if (qemu === "gone") return { reason: "GuestEnded", message: "the guest ended while it was moved", retryable: true };
    if (this.#copying.failed !== undefined) return this.#copying.failed;
    if (spec.cancel === true || metadata.deletionTimestamp !== undefined) {
      return { reason: "Cancelled", message: "it was cancelled", retryable: false };
    }
    const target = status?.target;
    if (target?.attempt === this.#note.attempt && (target.state === "GivenUp" || target.state === "Released")) {
      return targetGaveUp(target.message, target.retryable);
    }
    const { clock } = this.#parts;
    if (this.#allowedAt !== undefined) {
      const left = this.#allowedAt + SWITCH_MS - clock.monotonic();
      if (left <= 0) {
        const message = `the guest could not be stopped within ${SWITCH_MS / 1_000} s, for it writes its memory faster than it is sent`;
        return { reason: "NotConverging", message, retryable: true };
      }
      this.#alarm.in(left);
    }
    return undefined;
  }

  #linkIsUp(qemu: OutgoingState): boolean {
    const caller = this.#caller;
    const still = standsStill(qemu);
    // Nothing has been done that needs it.
    if (caller === undefined) return !still || this.#call() !== undefined;
    const now = this.#parts.clock.monotonic();
    if (this.#goAt !== undefined && this.#ranAt === undefined) {
      const left = this.#goAt + UNANSWERED_MS - now;
      if (left <= 0) return false;
      this.#alarm.in(left);
    }
    const left = (still ? AWAY_HELD_MS : AWAY_MS) - caller.downMs();
    if (caller.open || left > 0) {
      if (!caller.open) this.#alarm.in(left);
      return true;
    }
    return false;
  }

  /** Does what is decided: what takes long goes on in the background. True: look again at once. */
  async #act(actions: readonly SourceAction[], signal: AbortSignal): Promise<boolean | "settled"> {
    for (const action of actions) {
      if (action.do === "note") {
        await this.#promise(action.note);
        return true;
      }
      if (action.do === "settled") return (await this.#settle()) ? "settled" : false;
      if (action.do === "sendGo") await this.#sendGo();
      else this.#begin(action, signal);
    }
    return false;
  }

  /** In the background; what is under way already is not begun again. */
  #begin(action: SourceAction, signal: AbortSignal): void {
    const { moves, driver, checkpoint } = this.#parts;
    const { uid } = this.#note.instance;
    switch (action.do) {
      case "note":
      case "settled":
      case "sendGo":
        return;
      case "write":
        this.#underway.start(`writing the record (${action.from.state} to ${action.to.state})`, async () => {
          if (action.to.state === "Handover") await checkpoint("source", "write-handover");
          await this.#write(action);
        });
        return;
      case "allowPause":
        if (this.#allowedAt !== undefined) return;
        this.#underway.start("allowing the pause", async () => {
          await checkpoint("source", "allow-pause");
          this.#say({ state: "SwitchingOver" });
          this.#parts.reporter.hold(this.#ref, "source", true);
          this.#allowedAt = this.#parts.clock.monotonic();
          if (this.#copying.postCopy) {
            await this.#writeNote((note) => ({ ...note, postCopy: true }));
            await moves.postCopy(uid);
          }
          await moves.allowPause(uid, this.#migration.status?.policy?.maxPauseMs ?? DEFAULT_PAUSE_MS);
        });
        return;
      case "finish":
        this.#underway.start("the switchover", async () => {
          await checkpoint("source", "held");
          try {
            await moves.finish(uid, AbortSignal.any([signal, AbortSignal.timeout(SWITCH_MS)]));
            // By post-copy the rest of the memory may still be here; else nothing needs to be asked.
            if (this.#note.postCopy === true) this.#changed();
            else this.#set("complete");
          } catch (error) {
            if (!signal.aborted) this.#leave(whyOf(error, "SwitchoverFailed"));
          }
        });
        return;
      case "cancel":
      case "resume":
        // Whoever only follows the record has no reason of its own.
        if (!this.#isGivenUp()) this.#leave({ reason: "MoveBroken", message: this.#broken(), retryable: true });
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
          await this.#parts.destroy(this.#note, this.#migration, signal);
          this.#destroyed = true;
        });
    }
  }

  /** Noted for good before it counts. */
  async #promise(mark: "GivingUp" | "Gone"): Promise<void> {
    const { checkpoint } = this.#parts;
    if (mark === "Gone") await checkpoint("source", "complete");
    const why = mark === "GivingUp" ? this.#leave({ reason: "MoveBroken", message: this.#broken(), retryable: true }) : undefined;
    const stoppedAt = this.#stoppedAt === undefined ? {} : { stoppedAt: this.#stoppedAt };
    await this.#writeNote((note) => ({ ...note, ...stoppedAt, mark, ...(why === undefined ? {} : { why }) }));
    if (mark === "Gone") this.#mark("gone-noted");
    if (why !== undefined) {
      this.#parts.log.warn({ migration: this.#note.migration.name, ...why }, "the move is given up");
      this.#caller?.send({ type: "gave-up", ...why, message: why.message.slice(0, 4_000) });
    }
  }

  #broken(): string {
    if (this.#qemu === "gone") return "the guest ended while it was moved";
    if (this.#caller !== undefined && !this.#caller.open) return `the agents lost each other: ${this.#caller.trouble}`;
    return "QEMU could not go on with the move";
  }

  async #sendGo(): Promise<void> {
    const now = this.#parts.clock.monotonic();
    if (this.#goAt === undefined) await this.#parts.checkpoint("source", "go");
    const postCopy = this.#note.postCopy === true;
    const { connection } = this.#call();
    if (this.#goAt !== undefined && this.#goBy === connection) return;
    if (!this.#call().send({ type: "go", attempt: this.#note.attempt, postCopy })) return;
    if (this.#goAt === undefined) this.#mark("go-sent");
    this.#goAt ??= now;
    this.#goBy = connection;
  }

  async #settle(): Promise<boolean> {
    const { notes, metrics, clock } = this.#parts;
    const done = this.#isDone();
    // A copy of the disks alone is no move for QEMU, yet it leaves a job, a node and a key behind.
    if (!done && !this.#cleared && this.#qemu !== "gone") {
      this.#underway.start("clearing what is left of the move", async () => {
        this.#copying.stop();
        await this.#parts.moves.giveUp(this.#note.instance.uid);
        this.#cleared = true;
      });
      return false;
    }
    this.#parts.reporter.hold(this.#ref, "source", false);
    if (done) {
      this.#say({ state: "Released" });
      // Until the Instance names its new place, its ordinary controller would start it here again.
      if (this.#parts.livesHere(this.#note, this.#migration)) return false;
    } else {
      const why = this.#out ?? this.#note.why;
      this.#say({ state: "GivenUp", ...(why === undefined ? {} : { ...why, message: why.message.slice(0, 4_096) }) });
    }
    await notes.remove(this.#note);
    metrics.ended("source", done ? "moved" : "given-up");
    this.#parts.log.info(
      { migration: this.#note.migration.name, attempt: this.#note.attempt, tookMs: Math.round(clock.now() - this.#note.since) },
      done ? "the guest has left" : "the guest stays",
    );
    return true;
  }

  /** Copies while nothing is decided yet, and keeps the connection. */
  #advance(view: SourceView, signal: AbortSignal): void {
    const state = this.#record?.attempt === this.#note.attempt ? this.#record.state : undefined;
    if (view.note === "none" && (state === "Copying" || state === "Handover") && this.#out === undefined) {
      if (view.qemu === "idle" || view.qemu === "copying") this.#copying.go(view.qemu, signal);
    }
    if (view.note !== "Gone" || state === "Done") return;
    const caller = this.#call();
    if (this.#qemu === "draining") this.#rest.keepSending(this.#goBy);
    if (this.#note.postCopy !== true || this.#restSaid === caller.connection) return;
    if (this.#qemu === "complete" || this.#qemu === "gone") {
      this.#rest.ended(this.#qemu === "complete");
      if (caller.send({ type: "rest", sent: this.#qemu === "complete" })) this.#restSaid = caller.connection;
    }
  }

  #call(): Caller {
    const { identity, clock, log } = this.#parts;
    const caller = (this.#caller ??= new Caller({
      call: async (signal) => {
        const { target, targetNode } = this.#migration.status ?? {};
        const { attempt, migration } = this.#note;
        const endpoint = target?.attempt === attempt ? target.endpoint : undefined;
        if (endpoint === undefined || targetNode === undefined) throw new Error("the target has not said where its agent is");
        const own = await identity.ready(signal);
        return callTarget({ endpoint, migrationUid: migration.uid, attempt, targetNode, identity: own, clock, log, signal });
      },
      onMessage: (message) => this.#hear(message),
      onChange: () => {
        this.#copying.nudge();
        this.#wake.call();
      },
      clock,
      log,
    }));
    caller.begin();
    return caller;
  }

  #hear(message: TargetMessage): void {
    switch (message.type) {
      case "offer":
        this.#copying.offered(message);
        return;
      case "ran":
        this.#ran(message.marks);
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
  #ran(targetMarks: readonly { mark: string; ms: number }[]): void {
    if (this.#ranAt !== undefined) return;
    this.#ranAt = this.#mark("ran");
    const goAt = this.#marks.find(({ mark }) => mark === "go-sent")?.at;
    if (goAt !== undefined) for (const { mark, ms } of targetMarks) this.#marks.push({ mark: `target-${mark}`, at: goAt + ms });
    this.#underway.start(LAST_FIGURES, () => this.#tellPause());
    this.#wake.call();
  }

  async #tellPause(): Promise<void> {
    const { moves, reporter, metrics, checkpoint, log } = this.#parts;
    const { uid, name } = this.#note.instance;
    const driverMarks = moves.marks(uid).map((one) => ({ mark: one.name, at: one.at }));
    const stoppedAt = this.#stoppedAt ?? driverMarks.findLast(({ mark }) => mark === "stopped")?.at;
    await checkpoint("source", "ran");
    let downtimeMs: number | undefined;
    let last: Partial<MigrationSource> = {};
    try {
      const counters = await moves.counters(uid);
      downtimeMs = counters.downtimeMs;
      last = progressWords(counters);
      metrics.sent({ memory: counters.memory.doneBytes, disk: counters.disk.doneBytes });
    } catch (error) {
      log.debug({ instance: name, error: errorText(error) }, "QEMU does not tell its last figures");
    }
    if (stoppedAt !== undefined && this.#ranAt !== undefined) {
      const words = pauseWords(stoppedAt, this.#ranAt, [...driverMarks, ...this.#marks], downtimeMs);
      metrics.paused(words.pauseMs ?? 0);
      // By post-copy it is not over yet: rest.ts tells on.
      const over = this.#note.postCopy === true ? {} : { progress: "100%", stalled: undefined };
      this.#say({ state: "Completed", ...last, ...words, ...over, expectedPauseMs: undefined });
    } else this.#say({ state: "Completed", ...last });
    reporter.hold(this.#ref, "source", false);
    this.#underway.start(LETTING_GO, async () => {
      if ((await moves.outgoing(uid)) === "draining") return;
      await moves.release(uid);
      this.#caller?.send({ type: "let-go" });
    });
  }

  #event(event: MoveEvent): void {
    switch (event.kind) {
      case "stop":
        // Only the pause of the switchover is one of the move's.
        if (this.#allowedAt !== undefined) this.#stoppedAt ??= event.at;
        break;
      case "held":
        this.#set("held");
        return;
      case "complete":
        if (this.#note.postCopy === true) break;
        this.#set("complete");
        return;
      case "round":
        this.#copying.round();
        return;
      case "disk-ready":
        return;
      case "disk-failed":
        this.#leave({
          reason: "DiskCopyFailed",
          message: `disk ${event.disk} could not be copied: ${event.message ?? ""}`,
          retryable: true,
        });
        break;
      case "failed":
        this.#leave({ reason: "MemoryCopyFailed", message: event.message, retryable: true });
        break;
      case "ended":
        this.#qemu = undefined;
        break;
      case "interrupted":
        this.#rest.interrupted();
        break;
      case "resume":
      case "state":
    }
    this.#changed();
  }

  #set(qemu: OutgoingState): void {
    this.#changes += 1;
    this.#qemu = qemu;
    this.#wake.call();
  }

  #changed(): void {
    this.#changes += 1;
    // Complete is for ever, until we ourselves resume it.
    if (this.#qemu !== "complete") this.#qemu = undefined;
    this.#wake.call();
  }

  /** The guest runs on here; the next pause is another one. */
  #runsAgain(): void {
    this.#qemu = undefined;
    this.#stoppedAt = undefined;
    this.#allowedAt = undefined;
    this.#parts.reporter.hold(this.#ref, "source", false);
  }

  #leave(why: Why): Why {
    return (this.#out ??= this.#note.why ?? why);
  }

  async #write(action: Extract<SourceAction, { do: "write" }>): Promise<void> {
    const record = await writeRecord(this.#parts.client, this.#ref, action);
    this.#record = newest(this.#record, record);
  }

  get #note(): MoveNote {
    return this.#own.now;
  }

  #writeNote(change: (note: MoveNote) => MoveNote): Promise<void> {
    return this.#own.change(change);
  }

  #say(words: Partial<MigrationSource> & Pick<MigrationSource, "state">): void {
    const { attempt } = this.#note;
    const last = this.#parts.reporter.last(this.#ref, "source");
    const said = last?.role === "source" ? last.words : this.#migration.status?.source;
    const before = said?.attempt === attempt ? said : {};
    this.#parts.reporter.say(this.#ref, { role: "source", words: { ...before, ...words, attempt } });
  }

  #mark(mark: string): number {
    const { clock } = this.#parts;
    const at = clock.now();
    this.#marks.push({ mark, at });
    return at;
  }

  get #ref(): MigrationRef {
    return this.#note.migration;
  }
}

const standsStill = (qemu: OutgoingState): boolean => qemu === "held" || qemu === "complete" || qemu === "draining";

const LETTING_GO = "letting go of the target's disks";
const LAST_FIGURES = "reading the last figures";
const DEFAULT_PAUSE_MS = 300;

const targetGaveUp = (message: string | undefined, retryable: boolean | undefined): Why => ({
  reason: "TargetGaveUp",
  message: message ?? "the target gave up",
  retryable: retryable ?? true,
});
