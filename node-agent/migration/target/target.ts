/**
 * The target's side of one attempt: sees, asks what it may do (handover/target.ts), does it, and waits for news. The place for the
 * guest is making.ts and prepare.ts.
 */
import type { Handover, Migration, MigrationTarget } from "../../../crds/migration.ts";
import { errorText } from "../../errors.ts";
import type { IncomingState, MoveEvent } from "../../instance/move.ts";
import type { SourceMessage } from "../channel/messages.ts";
import type { TargetLink } from "../channel/server.ts";
import { firstMoments } from "../first-moments.ts";
import { decideTarget } from "../handover/target.ts";
import type { TargetAction, TargetView } from "../handover/types.ts";
import { Known } from "../known.ts";
import type { MoveNote, Why } from "../notes.ts";
import type { SideParts } from "../parts.ts";
import { Seen } from "../seen.ts";
import { Alarm, underwayOf, Wake, type Underway } from "../underway.ts";
import { toldWhy } from "../wishes.ts";
import { Making, type MakingParts } from "./making.ts";

/** How long it waits for the source's agent to come (back) while the guest is not here. */
const ALONE_MS = 120_000;
/** After Done: until the source has let go of the disks that it wrote to. */
const LET_GO_MS = 3_000;
const ASK_AGAIN_MS = 1_000;
/** Post-copy: QEMU tells nobody when it has taken in the state of the guest that stands still, so it is asked as often. */
const ARRIVING_MS = 10;

export interface TargetParts extends SideParts, MakingParts {
  /** Undoes all of it. May be repeated. */
  destroy: (note: MoveNote, signal: AbortSignal) => Promise<void>;
  /** Why the claim cannot be relied on any more. */
  claimTrouble: (migration: Migration) => string | undefined;
}

export class TargetMove {
  readonly #parts: TargetParts;
  readonly #wake = new Wake();
  readonly #underway: Underway;
  readonly #known: Known;
  readonly #seen: Seen<IncomingState>;
  readonly #making: Making;
  #link: TargetLink | undefined;
  #aloneSince: number;
  #go = false;
  #goAt: number | undefined;
  /** When the guest was let run by this agent, on the monotonic clock. */
  #resumedAt: number | undefined;
  #ranSaid = false;
  #letGo = false;
  #postCopy = false;
  #sourceEnded = false;
  #doneAt: number | undefined;
  #out: Why | undefined;
  #destroyed = false;
  #moments: Promise<void> | undefined;
  /** The exports of its disks are gone. */
  #closed = false;
  readonly #alarm: Alarm;
  /** Rings when QEMU is to be asked again, for it does not tell. */
  readonly #arriving: Alarm;
  readonly #marks: { mark: string; ms: number }[] = [];

  constructor(parts: TargetParts, note: MoveNote, migration: Migration) {
    this.#parts = parts;
    this.#known = new Known(parts, note, migration);
    this.#seen = new Seen(() => parts.moves.incoming(note.instance.uid));
    this.#making = new Making(parts, this.#known, {
      say: (words) => this.#say(words),
      tell: (message) => this.#link?.send(message),
    });
    this.#out = note.why;
    this.#aloneSince = parts.clock.monotonic();
    this.#alarm = new Alarm(parts.clock, () => this.#wake.call());
    this.#arriving = new Alarm(parts.clock, () => this.#changed());
    this.#underway = underwayOf(note, parts, () => this.#changed());
  }

  get note(): MoveNote {
    return this.#known.note;
  }

  get migration(): Migration {
    return this.#known.migration;
  }

  /** The guest is this node's own by now: its ordinary controller may look after it. */
  get arrived(): boolean {
    return this.#known.isDone && this.note.mark === "Ran";
  }

  news(migration: Migration | undefined, record?: Handover): void {
    this.#known.news(migration, record);
    this.#wake.call();
  }

  /** The source's agent has come; a new connection takes the place of an old one. */
  take(link: TargetLink): void {
    this.#link = link;
    link.onMessage((message) => this.#hear(message, link));
    link.onClose(() => {
      if (this.#link !== link) return;
      this.#link = undefined;
      this.#aloneSince = this.#parts.clock.monotonic();
      this.#wake.call();
    });
    // What was said by an earlier connection may have been lost with it.
    this.#making.sayOffer();
    this.#wake.call();
  }

  /** Resolves when this side is settled (true) or the signal aborts (false); all goes on in the next life of the agent. */
  async run(signal: AbortSignal): Promise<boolean> {
    const { moves } = this.#parts;
    const unwatch = moves.onMove(this.note.instance.uid, (event) => this.#event(event));
    const aborted = (): void => this.#wake.call();
    signal.addEventListener("abort", aborted);
    const stop = new AbortController();
    try {
      while (!signal.aborted) {
        this.#alarm.clear();
        this.#arriving.clear();
        const view = await this.#look();
        // an agent that died in them has left nobody for the guest agent's answer
        if (view?.qemu === "running") void this.#firstMoments();
        const again = view !== undefined && (await this.#act(decideTarget(view), stop.signal));
        if (again === "settled") return true;
        if (again) continue;
        this.#advance(stop.signal);
        await this.#wake.wait();
      }
      return false;
    } finally {
      signal.removeEventListener("abort", aborted);
      stop.abort();
      unwatch();
      this.#alarm.clear();
      this.#arriving.clear();
      this.#link?.close("this agent ends; another one follows");
      await this.#underway.close();
    }
  }

  async #look(): Promise<TargetView | undefined> {
    this.#out ??= this.#making.settle(this.#alarm);
    let qemu: IncomingState;
    try {
      qemu = await this.#seen.look();
    } catch (error) {
      this.#parts.log.warn({ instance: this.note.instance.name, error: errorText(error) }, "QEMU does not say how its move is");
      this.#alarm.in(ASK_AGAIN_MS);
      return undefined;
    }
    if (qemu === "waiting" && this.#go && this.#postCopy) this.#arriving.in(ARRIVING_MS);
    // One that is being made, or will be, is not one that has died.
    const coming = qemu === "gone" && !this.#destroyed && this.#out === undefined && this.#making.coming;
    const mark = this.note.mark;
    return {
      attempt: this.note.attempt,
      record: this.#known.record,
      qemu: coming ? "waiting" : qemu,
      missing: this.note.postCopy === true && this.note.whole !== true,
      note: mark === "Refusing" || mark === "Ran" ? mark : "none",
      go: this.#go,
      wantsOut: this.#wantsOut(),
      sourceEnded: this.#sourceEnded,
      keep: this.#known.migration.spec.keep,
      leftovers: !this.#destroyed,
    };
  }

  #wantsOut(): boolean {
    this.#out ??= this.#reasonToLeave();
    return this.#out !== undefined;
  }

  #reasonToLeave(): Why | undefined {
    if (this.note.mark === "Ran" || this.#known.isDone || this.#known.isGivenUp) return undefined;
    const trouble = this.#parts.claimTrouble(this.#known.migration);
    if (trouble !== undefined) return { reason: "ClaimLost", message: trouble, retryable: true };
    const { offeredAt } = this.#making;
    if (offeredAt === undefined || this.#link !== undefined) return undefined;
    const left = Math.max(this.#aloneSince, offeredAt) + ALONE_MS - this.#parts.clock.monotonic();
    if (left <= 0) {
      const message = `the agent of node ${this.#known.migration.status?.sourceNode ?? ""} has not been heard of for ${ALONE_MS / 1_000} s`;
      return { reason: "SourceSilent", message, retryable: true };
    }
    this.#alarm.in(left);
    return undefined;
  }

  async #act(actions: readonly TargetAction[], signal: AbortSignal): Promise<boolean | "settled"> {
    for (const action of actions) {
      if (action.do === "note") {
        await this.#promise(action.note);
        return true;
      }
      if (action.do === "resume") return this.#resume();
      if (action.do === "settled") return (await this.#settle(signal)) ? "settled" : false;
      this.#begin(action, signal);
    }
    return false;
  }

  /** In the background; what is under way already is not begun again. */
  #begin(action: TargetAction, signal: AbortSignal): void {
    const { driver, checkpoint } = this.#parts;
    switch (action.do) {
      case "note":
      case "settled":
      case "resume":
        return;
      case "write":
        // What the source hears by the connection it need not wait for.
        this.#sayRan();
        this.#underway.start(`writing the record (${action.from.state} to ${action.to.state})`, async () => {
          if (action.to.state === "Done") await checkpoint("target", "write-done");
          await this.#known.write(action);
        });
        return;
      case "bootAgain": {
        const { uid } = this.note.instance;
        this.#underway.start("ending half a guest", () => driver.stop(uid, { mode: "force", deadlineMs: 0 }, signal));
        return;
      }
      case "destroy":
        this.#making.stop();
        if (this.#underway.has(PREPARING)) return;
        this.#underway.start("removing what was made for the guest", async () => {
          await checkpoint("target", "release");
          await this.#parts.destroy(this.note, signal);
          this.#destroyed = true;
        });
    }
  }

  async #promise(mark: "Refusing" | "Ran"): Promise<void> {
    const { checkpoint, clock, log } = this.#parts;
    if (mark === "Ran") await checkpoint("target", "note-ran");
    const why = mark === "Refusing" ? (this.#out ??= QEMU_DIED) : undefined;
    const ran = mark === "Ran" ? { ranAt: clock.now(), ...(this.#postCopy ? { postCopy: true } : {}) } : {};
    await this.#known.writeNote((note) => ({ ...note, mark, ...ran, ...(why === undefined ? {} : { why }) }));
    if (why === undefined) {
      this.#mark("noted");
      return;
    }
    log.warn({ migration: this.note.migration.name, ...why }, "the target takes no more");
    this.#link?.send({ type: "gave-up", ...why, message: why.message.slice(0, 4_000) });
    this.#say({ state: "GivenUp", ...toldWhy(why) });
  }

  /** In the guest's pause: nothing else is done here. */
  async #resume(): Promise<boolean> {
    const { moves, checkpoint, log } = this.#parts;
    try {
      await checkpoint("target", "resume");
      await moves.resume(this.note.instance.uid);
      this.#resumedAt = this.#parts.clock.monotonic();
      this.#mark("resumed");
      await this.#firstMoments();
      this.#sayRan();
      this.#set("running");
      return true;
    } catch (error) {
      log.error({ instance: this.note.instance.name, error: errorText(error) }, "the guest could not be let run; trying again");
      this.#seen.forget();
      this.#alarm.in(ASK_AGAIN_MS);
      return false;
    }
  }

  /** Once in the agent's life. */
  #firstMoments(): Promise<void> {
    return (this.#moments ??= firstMoments(this.#parts.driver, this.note.instance.uid));
  }

  #sayRan(): void {
    if (this.#ranSaid || this.note.mark !== "Ran" || this.#link === undefined) return;
    this.#link.send({ type: "ran", marks: this.#marks, ...this.#since() });
    this.#ranSaid = true;
  }

  /** How long the guest has run here; where an agent before this one let it run, since it noted that it was about to. */
  #since(): { agoMs?: number } {
    const { clock } = this.#parts;
    const { ranAt } = this.note;
    if (this.#resumedAt !== undefined) return { agoMs: clock.monotonic() - this.#resumedAt };
    return ranAt === undefined ? {} : { agoMs: Math.max(0, clock.now() - ranAt) };
  }

  async #settle(signal: AbortSignal): Promise<boolean> {
    const { moves, notes, metrics, log, clock } = this.#parts;
    const done = this.#known.isDone;
    if (done) {
      this.#sayRan();
      this.#say({ state: "Running" });
      this.#doneAt ??= clock.monotonic();
      const left = this.#doneAt + LET_GO_MS - clock.monotonic();
      if (!this.#letGo && left > 0 && this.#seen.state === "running") {
        this.#alarm.in(left);
        return false;
      }
      if (this.#seen.state === "running" && !this.#closed) {
        this.#underway.start("closing the disks' exports", async () => {
          signal.throwIfAborted();
          await moves.closeDisks(this.note.instance.uid);
          this.#closed = true;
        });
        return false;
      }
    } else {
      const why = this.#out ?? this.note.why;
      this.#say({ state: "Released", ...toldWhy(why) });
    }
    await notes.remove(this.note);
    metrics.ended("target", done ? "moved" : "given-up");
    log.info(
      { migration: this.note.migration.name, attempt: this.note.attempt },
      done ? "the guest lives here" : "nothing of the guest is left here",
    );
    return true;
  }

  #advance(signal: AbortSignal): void {
    if (!this.#known.isOpen || this.note.mark !== "none" || this.#out !== undefined || this.#making.begun) return;
    this.#underway.start(PREPARING, async () => {
      this.#out ??= await this.#making.run(signal);
    });
  }

  #hear(message: SourceMessage, link: TargetLink): void {
    switch (message.type) {
      case "want-offer":
        this.#making.sayOffer();
        return;
      case "go":
        if (message.attempt !== this.note.attempt) return;
        this.#goAt ??= this.#parts.clock.monotonic();
        if (this.note.mark === "Refusing") link.send({ type: "refusing" });
        // Asked again, because the answer was lost.
        if (this.#go) this.#ranSaid = false;
        this.#go = true;
        this.#postCopy = message.postCopy;
        if (this.#seen.state === "running") this.#sayRan();
        break;
      case "rest":
        if (message.sent)
          this.#underway.start("noting that the guest is whole", () =>
            this.#known.writeNote((note) => ({ ...note, whole: true })),
          );
        else this.#sourceEnded = true;
        break;
      case "want-rest":
        this.#underway.start("listening for the rest of the memory", async () => {
          const { address, ramPort } = await this.#parts.moves.receiveRest(this.note.instance.uid);
          link.send({ type: "rest-here", address, ramPort });
        });
        return;
      case "let-go":
        this.#letGo = true;
        break;
      case "gave-up":
        this.#out ??= { reason: "SourceGaveUp", message: message.message, retryable: message.retryable };
    }
    this.#wake.call();
  }

  #event(event: MoveEvent): void {
    if (event.kind === "complete") this.#mark("complete");
    if (event.kind === "interrupted") this.#link?.send({ type: "interrupted" });
    if (event.kind === "round" || event.kind === "disk-ready") return;
    this.#changed();
  }

  #set(qemu: IncomingState): void {
    this.#seen.set(qemu);
    this.#wake.call();
  }

  #changed(): void {
    this.#seen.forget();
    this.#wake.call();
  }

  #say(words: Partial<MigrationTarget> & Pick<MigrationTarget, "state">): void {
    this.#parts.reporter.say(this.#known.ref, { role: "target", words: { ...words, attempt: this.note.attempt } });
  }

  /** Counted from the source's `go`. */
  #mark(mark: string): void {
    if (this.#goAt === undefined) return;
    this.#marks.push({ mark, ms: Math.round((this.#parts.clock.monotonic() - this.#goAt) * 10) / 10 });
  }
}

const PREPARING = "preparing the guest's place";
const QEMU_DIED: Why = { reason: "TargetDied", message: "the QEMU that waited for the guest has ended", retryable: true };
