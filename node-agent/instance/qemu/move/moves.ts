/** Live moves of QEMU guests: both ends. */
import type {
  IncomingPlan,
  IncomingState,
  MoveCounters,
  MoveDriver,
  MoveEvent,
  MoveMark,
  Offer,
  OutgoingPlan,
  OutgoingState,
} from "../../move.ts";
import { errorText } from "../../../errors.ts";
import type { QemuContext } from "../context.ts";
import type { Locks } from "../locks.ts";
import { checkUid } from "../notes.ts";
import type { QmpEvent } from "../qmp/session.ts";
import { setParameters } from "./commands.ts";
import { moveEvent, MoveEvents } from "./events.ts";
import { giveUp, release } from "./give-up.ts";
import { abandon, closeDisks, closeExports, hasArrived, incomingState, receive, resume } from "./incoming.ts";
import { Outgoing } from "./outgoing.ts";
import { Marks, monitorOf, type MoveParts } from "./parts.ts";
import { receiveRest, sendRest } from "./rest.ts";
import { Switchover } from "./switchover.ts";
import { slowWrites, THROTTLED } from "./throttle.ts";

/** Rounds are told to watchers at most this often; ms. */
const ROUND_EVERY_MS = 20;

interface OnItsWay {
  outgoing: Outgoing;
  switchover: Switchover;
  abort: AbortController;
  roundTold: number;
}

export class QemuMoves implements MoveDriver {
  readonly #context: QemuContext;
  readonly #locks: Locks;
  /** What others need who work with the same guests. */
  readonly parts: MoveParts;
  readonly #watchers = new Map<string, Set<(event: MoveEvent) => void>>();
  readonly #out = new Map<string, OnItsWay>();
  /** Guests that come, and once one is all here: when its disks are its own. */
  readonly #in = new Map<string, Promise<void> | undefined>();
  readonly #resuming = new Set<string>();
  readonly #changed: (instanceUid: string) => void;

  /** `changed` is called when `observe` would tell something else; `locks` are the driver's own. */
  constructor(context: QemuContext, locks: Locks, changed: (instanceUid: string) => void) {
    this.#context = context;
    this.#locks = locks;
    this.#changed = changed;
    this.parts = {
      context,
      events: new MoveEvents(context.clock),
      marks: new Marks(context.clock),
      tell: (uid, event) => this.#tell(uid, event),
    };
  }

  /** Whether the guest is in its pause, or near it, at this end: nothing is asked of its QEMU then that the move does not need. */
  isPausing(instanceUid: string): boolean {
    return this.#resuming.has(instanceUid) || this.#out.get(instanceUid)?.switchover.isAllowed === true;
  }

  /** The driver hands over what QEMU tells. */
  onEvent(instanceUid: string, event: QmpEvent): void {
    this.parts.events.tell(instanceUid, event);
    if (event.name === "MIGRATION_PASS") {
      this.#onRound(instanceUid);
      return;
    }
    if (hasArrived(event) && this.#in.has(instanceUid)) void this.#ownDisks(instanceUid);
    const told = moveEvent(event);
    if (!told) return;
    this.#mark(instanceUid, told);
    this.#tell(instanceUid, told);
  }

  /** The connection to a guest's QEMU has ended. */
  onClosed(instanceUid: string): void {
    this.parts.events.tell(instanceUid, "closed");
    this.#tell(instanceUid, { kind: "ended" });
  }

  close(): void {
    for (const uid of this.#out.keys()) this.#forget(uid);
    this.#watchers.clear();
  }

  receive(plan: IncomingPlan, signal: AbortSignal): Promise<Offer> {
    const { instanceUid } = plan.machine;
    return this.#locks.run(checkUid(instanceUid), async () => {
      signal.throwIfAborted();
      try {
        const offer = await receive(this.#context, plan, signal);
        this.#in.set(instanceUid, undefined);
        this.parts.marks.add(instanceUid, "listening");
        return offer;
      } finally {
        this.#changed(instanceUid);
      }
    });
  }

  incoming(instanceUid: string): Promise<IncomingState> {
    return incomingState(this.#context, checkUid(instanceUid));
  }

  async resume(instanceUid: string): Promise<void> {
    this.#resuming.add(checkUid(instanceUid));
    try {
      await resume(this.#context, this.parts.events, instanceUid, () => this.#ownDisks(instanceUid));
    } finally {
      this.#resuming.delete(instanceUid);
    }
  }

  closeDisks(instanceUid: string): Promise<void> {
    return this.#locks.run(checkUid(instanceUid), async () => {
      await closeDisks(this.#context, this.parts.events, instanceUid);
      this.#in.delete(instanceUid);
      this.#changed(instanceUid); // what it does was not looked at in its pause
    });
  }

  abandon(instanceUid: string): Promise<void> {
    return this.#locks.run(checkUid(instanceUid), async () => {
      this.#in.delete(instanceUid);
      await abandon(this.#context, instanceUid).finally(() => this.#changed(instanceUid));
    });
  }

  outgoing(instanceUid: string): Promise<OutgoingState> {
    return this.#on(instanceUid).outgoing.state();
  }

  copyDisks(instanceUid: string, plan: OutgoingPlan, signal: AbortSignal): Promise<void> {
    const { outgoing, abort } = this.#on(instanceUid);
    return this.#locks.run(`move of ${instanceUid}`, () => outgoing.copyDisks(plan, AbortSignal.any([signal, abort.signal])));
  }

  copyMemory(instanceUid: string, plan: OutgoingPlan, signal: AbortSignal): Promise<void> {
    const { outgoing, abort } = this.#on(instanceUid);
    return this.#locks.run(`move of ${instanceUid}`, () => outgoing.copyMemory(plan, AbortSignal.any([signal, abort.signal])));
  }

  allowPause(instanceUid: string, maxPauseMs: number): Promise<void> {
    return this.#on(instanceUid).switchover.allow(maxPauseMs);
  }

  finish(instanceUid: string, signal: AbortSignal): Promise<void> {
    const { switchover, abort } = this.#on(instanceUid);
    return switchover.finish(AbortSignal.any([signal, abort.signal]));
  }

  limit(instanceUid: string, bytesPerSecond: number | undefined): Promise<void> {
    return this.#on(instanceUid).outgoing.setLimit(bytesPerSecond);
  }

  async throttle(instanceUid: string): Promise<void> {
    checkUid(instanceUid);
    const qmp = await monitorOf(this.parts, instanceUid);
    await setParameters(qmp, THROTTLED);
    await slowWrites(qmp);
  }

  async postCopy(instanceUid: string): Promise<void> {
    const { switchover } = this.#on(instanceUid);
    const qmp = await monitorOf(this.parts, instanceUid);
    await qmp.execute("migrate-start-postcopy");
    switchover.ignoreWhatIsLeft();
  }

  receiveRest(instanceUid: string): Promise<Offer> {
    return receiveRest(this.#context, this.parts.events, checkUid(instanceUid));
  }

  sendRest(instanceUid: string, offer: Pick<Offer, "address" | "ramPort">): Promise<void> {
    const { outgoing } = this.#on(instanceUid);
    return this.#locks.run(`move of ${instanceUid}`, () => sendRest(this.parts, outgoing, offer));
  }

  async giveUp(instanceUid: string): Promise<void> {
    const { outgoing, switchover } = this.#on(instanceUid);
    if (await outgoing.isGone()) {
      this.#forget(instanceUid);
      return;
    }
    if (switchover.ignoresWhatIsLeft && (await outgoing.state()) === "draining") {
      throw new Error("the guest has gone on at the target by post-copy; it cannot be taken back");
    }
    this.#stop(instanceUid);
    // first of all, so that whatever waits for the other end ends; it is done once more in its turn
    await outgoing.door.yank().catch(() => undefined);
    await this.#locks.run(`move of ${instanceUid}`, () => giveUp(this.parts, outgoing));
    this.#forget(instanceUid);
  }

  async release(instanceUid: string): Promise<void> {
    const { outgoing } = this.#on(instanceUid);
    if (!(await outgoing.isGone())) await release(this.parts, outgoing);
    this.#forget(instanceUid);
  }

  /** The instance is no longer here: what its last move out came to is nothing to the next one. May be repeated. */
  forget(instanceUid: string): void {
    this.#forget(instanceUid);
    this.#in.delete(instanceUid);
  }

  counters(instanceUid: string): Promise<MoveCounters> {
    return this.#on(instanceUid).outgoing.counters();
  }

  onMove(instanceUid: string, fn: (event: MoveEvent) => void): () => void {
    checkUid(instanceUid);
    const all = this.#watchers.get(instanceUid) ?? new Set();
    const watcher = (event: MoveEvent): void => fn(event); // an identity of its own
    this.#watchers.set(instanceUid, all.add(watcher));
    // connects, so that events arrive; whoever asks anything of a QEMU that is gone learns it there
    monitorOf(this.parts, instanceUid).catch(() => undefined);
    return () => {
      all.delete(watcher);
      if (all.size === 0 && this.#watchers.get(instanceUid) === all) this.#watchers.delete(instanceUid);
    };
  }

  marks(instanceUid: string): readonly MoveMark[] {
    return this.parts.marks.of(instanceUid);
  }

  /** Once; whoever comes later waits for the same. Never throws: a guest runs without its disks' locks rather than not at all. */
  #ownDisks(instanceUid: string): Promise<void> {
    const begun = this.#in.get(instanceUid);
    if (begun !== undefined) return begun;
    const closing = closeExports(this.#context, this.parts.events, instanceUid).catch((error: unknown) => {
      this.#in.delete(instanceUid);
      this.#context.log.warn({ instanceUid, error: errorText(error) }, "a disk is not locked: its export could not be closed");
    });
    this.#in.set(instanceUid, closing);
    return closing;
  }

  #on(instanceUid: string): OnItsWay {
    const known = this.#out.get(checkUid(instanceUid));
    if (known) return known;
    const outgoing = new Outgoing(this.parts, instanceUid);
    const made = { outgoing, switchover: new Switchover(this.parts, outgoing), abort: new AbortController(), roundTold: 0 };
    this.#out.set(instanceUid, made);
    return made;
  }

  /** Whatever is under way for a move that is given up ends. */
  #stop(instanceUid: string): void {
    const known = this.#out.get(instanceUid);
    known?.switchover.close();
    known?.abort.abort(new Error("the move was given up"));
  }

  #forget(instanceUid: string): void {
    this.#stop(instanceUid);
    this.#out.get(instanceUid)?.outgoing.door.close();
    this.#out.delete(instanceUid);
  }

  #onRound(instanceUid: string): void {
    const known = this.#out.get(instanceUid);
    if (!known) return;
    known.switchover.onRound();
    const now = this.#context.clock.monotonic();
    if (now - known.roundTold < ROUND_EVERY_MS) return;
    known.roundTold = now;
    this.#tell(instanceUid, { kind: "round" });
  }

  #mark(instanceUid: string, { kind }: MoveEvent): void {
    const { marks } = this.parts;
    if (kind === "held" || kind === "complete") marks.add(instanceUid, kind);
    else if (marks.of(instanceUid).length === 0) return;
    else if (kind === "stop") marks.add(instanceUid, "stopped");
    else if (kind === "resume") marks.add(instanceUid, "resumed");
  }

  #tell(instanceUid: string, event: MoveEvent): void {
    for (const watcher of this.#watchers.get(instanceUid) ?? []) watcher(event);
  }
}
