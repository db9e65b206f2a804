/** Instances as QEMU processes of their own, which outlive the agent. */
import { join } from "node:path";
import { realClock, type Clock, type TimerHandle } from "../../../kube/clock.ts";
import type { Logger } from "../../../kube/logger.ts";
import { errorText, UserError } from "../../errors.ts";
import { nodePid, type NodePaths } from "../../node.ts";
import type { GuestIdentity } from "../../types.ts";
import type { InstanceDriver, MachinePlan, Observed, StopMode } from "../driver.ts";
import { tail } from "./bounded-file.ts";
import { ClaimCgroups, type CgroupPlace } from "./cgroup.ts";
import { HANDED } from "./command-line.ts";
import { DEADLINE, timestamp, updateRun, type QemuContext } from "./context.ts";
import { GuestAgents } from "./guest-agent.ts";
import { QemuUpdates } from "./in-place/updates.ts";
import { takeNames } from "./in-place/names.ts";
import { endOthers } from "./in-place/next.ts";
import { Locks } from "./locks.ts";
import { QemuPoolMoves } from "./local/moves.ts";
import { Monitors } from "./monitors.ts";
import { QemuMoves } from "./move/moves.ts";
import { checkUid, Notes } from "./notes.ts";
import { endProcess, observe } from "./observe.ts";
import { findProcess, goneWithin, readBootId } from "./process.ts";
import { startMachine } from "./start.ts";
import { stopClean } from "./stop.ts";

export interface QemuDriverOptions {
  paths: NodePaths;
  log: Logger;
  clock?: Clock;
  /** The node's cgroups as this process sees them. Default: through the node's init. */
  cgroups?: CgroupPlace;
  /** The same mount point as the node sees it. */
  cgroupRoot?: string;
  /** QEMU's trace events that go to each guest's stderr log. Default: none. */
  trace?: readonly string[];
}

/** Events after which `observe` may tell something else. */
const TELLING = new Set([
  "SHUTDOWN",
  "GUEST_PANICKED",
  "STOP",
  "RESUME",
  "RESET",
  "BLOCK_IO_ERROR",
  "VSERPORT_CHANGE",
  "MEMORY_FAILURE",
]);

/** Those that the switchover of a move brings about, too; whoever looks when that is over sees what they told. */
const OF_MOVES = new Set(["STOP", "RESUME", "VSERPORT_CHANGE"]);

/** A monitor that does not answer while its QEMU lives is tried again after this, in ms: no event would tell. */
const REATTACH_MS = 1_000;

export class QemuDriver implements InstanceDriver {
  /** Live moves of the guests. */
  readonly moves: QemuMoves;
  /** Disks that go to another pool of this node. */
  readonly poolMoves: QemuPoolMoves;
  /** Other QEMUs under running guests. */
  readonly updates: QemuUpdates;
  readonly #context: QemuContext;
  readonly #locks = new Locks();
  readonly #listeners = new Map<string, Set<() => void>>();
  /** Instances that are being looked at, and whether something has happened since. */
  readonly #looking = new Map<string, { again: boolean }>();
  readonly #timers = new Map<string, TimerHandle>();
  #boot: Promise<string> | undefined;
  #closed = false;

  constructor(options: QemuDriverOptions) {
    const { paths, log, clock = realClock, cgroupRoot = "/sys/fs/cgroup", trace = [] } = options;
    const cgroups = options.cgroups ?? { root: `/proc/${nodePid()}/root${cgroupRoot}`, parent: "" };
    this.#context = {
      paths,
      log,
      clock,
      cgroupRoot,
      trace,
      notes: new Notes(paths),
      cgroups: new ClaimCgroups(cgroups),
      guestAgents: new GuestAgents({ paths, clock }),
      monitors: new Monitors({
        paths,
        clock,
        onEvent: (uid, event) => {
          this.moves.onEvent(uid, event);
          const isOfMove = OF_MOVES.has(event.name) && (this.moves.isPausing(uid) || this.updates.isSwitching(uid));
          if (TELLING.has(event.name) && !isOfMove) this.#look(uid);
        },
        onClosed: (uid) => {
          this.moves.onClosed(uid);
          this.#background(uid, this.#monitorClosed(uid));
        },
        onError: (uid, error) => this.#warn(uid, error),
        beforeConnect: (uid) => this.#settleNames(uid),
      }),
      bootId: () => (this.#boot ??= readBootId()),
      children: new Map(),
      starting: new Set(),
    };
    this.moves = new QemuMoves(this.#context, this.#locks, (uid) => this.#notify(uid));
    this.poolMoves = new QemuPoolMoves(this.moves.parts, this.#locks);
    this.updates = new QemuUpdates(this.moves.parts, this.#locks, {
      changed: (uid) => this.#look(uid),
      watch: (uid, fn) => this.watch(uid, fn),
    });
  }

  async prepare(instance: { instanceUid: string; namespace: string; name: string }): Promise<GuestIdentity> {
    checkUid(instance.instanceUid);
    return (await this.#context.notes.prepare(instance)).identity;
  }

  list(): Promise<string[]> {
    return this.#context.notes.list();
  }

  observe(instanceUid: string): Promise<Observed> {
    return observe(this.#context, checkUid(instanceUid));
  }

  start(plan: MachinePlan, signal: AbortSignal): Promise<{ pid: number }> {
    const { instanceUid } = plan;
    return this.#locks.run(checkUid(instanceUid), async () => {
      signal.throwIfAborted();
      const running = await this.#alreadyRunning(plan);
      if (running) return running;
      await endOthers(this.#context, instanceUid);
      this.#context.starting.add(instanceUid);
      try {
        return await startMachine(this.#context, plan, signal);
      } finally {
        this.#context.starting.delete(instanceUid);
        this.#notify(instanceUid);
      }
    });
  }

  stop(instanceUid: string, how: StopMode, signal: AbortSignal): Promise<void> {
    return this.#locks.run(checkUid(instanceUid), async () => {
      signal.throwIfAborted();
      const seen = await this.observe(instanceUid);
      const run = seen.note?.run;
      const process = run && !run.exit ? await findProcess(run, this.#context.cgroups) : undefined;
      await endOthers(this.#context, instanceUid);
      if (!run || !process) return;
      // noted before it is asked: its end is then no crash, whoever sees it
      const stopAskedAt = timestamp(this.#context.clock);
      await updateRun(this.#context, instanceUid, run, (before) => ({ ...before, stopAskedAt }));
      if (how.mode === "clean" && seen.state === "running") {
        const changes = this.#changes(instanceUid);
        try {
          await stopClean(this.#context, { instanceUid, process, deadlineMs: how.deadlineMs, nextChange: changes.next }, signal);
        } finally {
          changes.stop();
        }
      }
      await endProcess(this.#context, instanceUid, process);
      await this.observe(instanceUid); // notes the end, unless that was done
      this.#notify(instanceUid);
    });
  }

  pingGuestAgent(instanceUid: string, deadlineMs: number): Promise<boolean> {
    return this.#context.guestAgents.ping(checkUid(instanceUid), deadlineMs);
  }

  async consoleTail(instanceUid: string, bytes: number): Promise<string> {
    return String(await tail(this.#vmFile(instanceUid, HANDED.console.name), bytes));
  }

  forget(instanceUid: string): Promise<void> {
    return this.#locks.run(checkUid(instanceUid), async () => {
      const { notes, cgroups, children } = this.#context;
      const note = await notes.read(instanceUid);
      if (note?.run) {
        if (await findProcess(note.run, cgroups)) throw new Error(`${note.name} still runs; stop it before forgetting it`);
        await endOthers(this.#context, instanceUid);
        await cgroups.remove(note.run.claimUid);
      }
      await notes.remove(instanceUid);
      children.delete(instanceUid);
      this.moves.forget(instanceUid);
    });
  }

  watch(instanceUid: string, onChange: () => void): () => void {
    checkUid(instanceUid);
    const listeners = this.#listeners.get(instanceUid) ?? new Set();
    const listener = (): void => onChange(); // an identity of its own: the same function may watch twice
    listeners.add(listener);
    this.#listeners.set(instanceUid, listeners);
    this.#background(instanceUid, this.#attach(instanceUid));
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0 && this.#listeners.get(instanceUid) === listeners) this.#listeners.delete(instanceUid);
    };
  }

  /** Lets go of all guests; they run on. */
  async close(): Promise<void> {
    this.#closed = true;
    this.moves.close();
    this.updates.close();
    this.#listeners.clear();
    for (const timer of this.#timers.values()) this.#context.clock.clearTimeout(timer);
    this.#context.guestAgents.close();
    await this.#context.monitors.close();
  }

  /** An agent may have died between the note that another QEMU runs the guest and giving that one its names. */
  async #settleNames(instanceUid: string): Promise<void> {
    const { notes, paths } = this.#context;
    if ((await notes.read(instanceUid))?.run?.previous !== undefined) await takeNames(paths, instanceUid);
  }

  async #alreadyRunning(plan: MachinePlan): Promise<{ pid: number } | undefined> {
    const seen = await this.observe(plan.instanceUid);
    if (!seen.note) throw new Error(`${plan.name}: prepare comes before start`);
    if (seen.pid === undefined) return undefined;
    if (seen.note.run?.incoming && seen.state !== "running") {
      throw new UserError("ReceivesGuest", `${plan.name} is about to move here; it is not started beside that`);
    }
    if (seen.claimUid !== plan.claimUid) {
      throw new UserError("RunsInOtherClaim", `it still runs in the claim ${seen.claimUid}; that one has to end first`);
    }
    return { pid: seen.pid };
  }

  /**
   * Sees what an event is about, acts on it (a guest that has ended leaves a QEMU to end), and tells. One at a time for each
   * instance: a guest that resets itself in a loop makes a thousand events, not a thousand questions.
   */
  #look(instanceUid: string): void {
    const looking = this.#looking.get(instanceUid);
    if (looking) looking.again = true;
    else this.#background(instanceUid, this.#lookUntilCalm(instanceUid));
  }

  async #lookUntilCalm(instanceUid: string): Promise<void> {
    const looking = { again: true };
    this.#looking.set(instanceUid, looking);
    try {
      while (looking.again && !this.#closed) {
        looking.again = false;
        await this.#attach(instanceUid).finally(() => this.#notify(instanceUid));
      }
    } finally {
      this.#looking.delete(instanceUid);
    }
  }

  async #monitorClosed(instanceUid: string): Promise<void> {
    const { notes, cgroups, clock } = this.#context;
    const run = (await notes.read(instanceUid))?.run;
    const process = run && (await findProcess(run, cgroups));
    const gone = !process || (await goneWithin(process, DEADLINE.closeToEnd, clock));
    if (!gone) this.#context.log.debug({ instanceUid }, "QEMU has closed its monitor and lives on");
    this.#look(instanceUid);
  }

  /** Observes, which connects to the monitor of a guest that runs: from then on its events arrive. If it cannot, tries again. */
  async #attach(instanceUid: string): Promise<void> {
    try {
      const seen = await this.observe(instanceUid);
      const silent = seen.pid !== undefined && (seen.state === "starting" || seen.runState === "not-answering");
      if (silent) this.#lookLater(instanceUid);
    } catch (error) {
      this.#lookLater(instanceUid);
      throw error;
    }
  }

  #lookLater(instanceUid: string): void {
    if (this.#closed || this.#timers.has(instanceUid) || !this.#listeners.has(instanceUid)) return;
    const look = (): void => {
      this.#timers.delete(instanceUid);
      this.#look(instanceUid);
    };
    this.#timers.set(instanceUid, this.#context.clock.setTimeout(look, REATTACH_MS));
  }

  /** The instance's changes as promises: `next` resolves at the first one after its call. */
  #changes(instanceUid: string): { next: () => Promise<void>; stop: () => void } {
    let wake = (): void => undefined;
    const stop = this.watch(instanceUid, () => wake());
    const next = (): Promise<void> =>
      new Promise((resolve) => {
        wake = resolve;
      });
    return { next, stop };
  }

  #notify(instanceUid: string): void {
    for (const listener of this.#listeners.get(instanceUid) ?? []) listener();
  }

  #background(instanceUid: string, work: Promise<unknown>): void {
    work.catch((error: unknown) => {
      if (!this.#closed) this.#warn(instanceUid, error);
    });
  }

  #warn(instanceUid: string, error: unknown): void {
    this.#context.log.warn({ instanceUid, error: errorText(error) }, "watching the guest failed");
  }

  #vmFile(instanceUid: string, name: string): string {
    return join(this.#context.paths.instanceVm(checkUid(instanceUid)), name);
  }
}
