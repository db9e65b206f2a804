/**
 * Another QEMU under a running guest. Two processes of one instance, of which one runs it: the notes say which (view.ts), files of the
 * instance are named accordingly (names.ts), and QEMUs are asked for the rest.
 */
import { join } from "node:path";
import { sleep } from "../../../../kube/clock.ts";
import { errorText, UserError } from "../../../errors.ts";
import type { MachinePlan } from "../../driver.ts";
import type { SwitchOptions, UpdateDriver, UpdateMark, UpdatePlan, UpdateState } from "../../update.ts";
import { checkPlan } from "../checks.ts";
import { HANDED } from "../command-line.ts";
import { DEADLINE, updateRun, type Run } from "../context.ts";
import { nextName } from "../launcher.ts";
import type { Locks } from "../locks.ts";
import { queryMigrate, setParameters } from "../move/commands.ts";
import { isSettling } from "../move/left.ts";
import { monitorOf, type MoveParts } from "../move/parts.ts";
import { checkUid } from "../notes.ts";
import { queryStatus } from "../qmp/commands.ts";
import { QmpSession } from "../qmp/session.ts";
import { within } from "../within.ts";
import { canHandOver, tooOld } from "./blockers.ts";
import { removeNames, takeNames } from "./names.ts";
import { endNext, endOthers, refusal, startNext } from "./next.ts";
import { requireRoom } from "./room.ts";
import { goOnInOld, HANDING_OVER, isUnderWay, letRun, ORDINARY, switchOver } from "./switch.ts";
import { lookAtBoth, nextKey, noteTaken, updateNext, type Both } from "./view.ts";

/** A switch that nobody waits for any more (its agent died) comes to an end by itself within this, or is ended. */
const SETTLE_MS = 5_000;
const LOOK_AGAIN_MS = 20;

export class QemuUpdates implements UpdateDriver {
  readonly #parts: MoveParts;
  readonly #locks: Locks;
  readonly #changed: (instanceUid: string) => void;
  readonly #watch: (instanceUid: string, fn: () => void) => () => void;
  readonly #switching = new Set<string>();
  readonly #marks = new Map<string, UpdateMark[]>();
  /** Monitors of QEMUs that are to take over. */
  readonly #young = new Map<string, QmpSession>();

  /** `locks` are the driver's own; `changed` is called when `observe` would tell something else. */
  constructor(
    parts: MoveParts,
    locks: Locks,
    { changed, watch }: { changed: (instanceUid: string) => void; watch: (instanceUid: string, fn: () => void) => () => void },
  ) {
    this.#parts = parts;
    this.#locks = locks;
    this.#changed = changed;
    this.#watch = watch;
  }

  async state(instanceUid: string): Promise<UpdateState> {
    const both = await lookAtBoth(this.#parts.context, instanceUid);
    const { run, process, next } = both;
    if (run === undefined) return "gone";
    if (run.previous !== undefined) return process === undefined ? "gone" : "new";
    if (process === undefined) return next === undefined ? "gone" : this.#withoutOld(instanceUid, run);
    // one whose agent died before it was noted may not wait yet, or never
    if (next === undefined || run.next?.pid === undefined) return "old";
    return run.next?.served === true ? this.#afterServing(both, instanceUid) : "ready";
  }

  prepare(plan: UpdatePlan, signal: AbortSignal): Promise<void> {
    const { instanceUid } = plan;
    return this.#alone(instanceUid, async () => {
      const { context } = this.#parts;
      const { run, process, next } = await lookAtBoth(context, instanceUid);
      if (run?.pid === undefined || process === undefined) throw new UserError("GuestEnded", "the guest does not run any more");
      if (run.previous !== undefined) throw new Error("the guest has just got another QEMU; that is not over yet");
      const waits = next !== undefined && run.next?.pid !== undefined && run.next.served !== true;
      if (waits && run.next?.runtimeVersion === plan.runtimeVersion) return;
      await this.#endNext(instanceUid);
      const machine = await checkPlan(machineOf(plan, run), context.paths);
      await this.#requireAble(instanceUid, run);
      const child = (): { ended: Promise<unknown> } | undefined => context.children.get(nextKey(instanceUid));
      await startNext(context, { machine, run, from: process }, signal);
      void child()?.ended.then(() => this.#changed(instanceUid));
    });
  }

  switchOver(instanceUid: string, options: SwitchOptions): Promise<void> {
    return this.#alone(instanceUid, async () => {
      const { context } = this.#parts;
      const { run, next } = await lookAtBoth(context, instanceUid);
      if (run?.next === undefined || next === undefined) throw new Error("no QEMU waits for the guest");
      let noted = false;
      const marks: UpdateMark[] = [];
      this.#marks.set(instanceUid, marks);
      this.#switching.add(instanceUid);
      try {
        const young = await switchOver(this.#parts, {
          instanceUid,
          maxPauseMs: options.maxPauseMs,
          noteServed: () => updateNext(context, instanceUid, run, (before) => ({ ...before, served: true })),
          connect: () => this.#connect(instanceUid),
          noteVersion: (qemuVersion) => updateNext(context, instanceUid, run, (before) => ({ ...before, qemuVersion })),
          mark: (name, at = context.clock.now()) => void marks.push({ name, at }),
          noted: async (stillThere) => {
            await options.noted(stillThere);
            noted = true;
          },
        });
        await this.#taken(instanceUid, young);
      } catch (cause) {
        if (noted) throw cause;
        const refused = await this.#whyNot(instanceUid, run, cause);
        await this.#goOnInOld(instanceUid);
        throw refused;
      } finally {
        this.#switching.delete(instanceUid);
        this.#changed(instanceUid);
      }
    });
  }

  run(instanceUid: string): Promise<void> {
    return this.#alone(instanceUid, async () => {
      const { run, next } = await lookAtBoth(this.#parts.context, instanceUid);
      if (run?.previous !== undefined) return;
      if (run?.next?.served !== true || next === undefined) throw new Error("there is no QEMU that has the guest");
      this.#switching.add(instanceUid);
      try {
        const young = await this.#connect(instanceUid);
        if (!(await queryStatus(young)).running) await letRun(young);
        await this.#taken(instanceUid, young);
      } finally {
        this.#switching.delete(instanceUid);
        this.#changed(instanceUid);
      }
    });
  }

  finish(instanceUid: string): Promise<void> {
    return this.#alone(instanceUid, async () => {
      const { context } = this.#parts;
      const found = await lookAtBoth(context, instanceUid);
      if (found.run?.next !== undefined) await noteTaken(context, instanceUid, found.run);
      const run = (await context.notes.read(instanceUid))?.run;
      if (run === undefined) return;
      // the old one has let go of the disks and holds nothing that the other one has not
      await endOthers(context, instanceUid);
      await takeNames(context.paths, instanceUid);
      await removeNames(context.paths, instanceUid);
      await updateRun(context, instanceUid, run, (before) => {
        const { previous: _, ...rest } = before;
        return rest;
      });
      this.#forgetYoung(instanceUid);
      this.#changed(instanceUid);
    });
  }

  giveUp(instanceUid: string): Promise<void> {
    return this.#alone(instanceUid, async () => {
      await this.#goOnInOld(instanceUid);
      this.#changed(instanceUid);
    });
  }

  /** Lets go of all guests; they run on. */
  close(): void {
    for (const uid of this.#young.keys()) this.#forgetYoung(uid);
  }

  isSwitching(instanceUid: string): boolean {
    return this.#switching.has(instanceUid);
  }

  marks(instanceUid: string): readonly UpdateMark[] {
    return this.#marks.get(instanceUid) ?? [];
  }

  onUpdate(instanceUid: string, fn: () => void): () => void {
    return this.#watch(instanceUid, fn);
  }

  /** The old one is gone; the new one may have the whole guest all the same. */
  async #withoutOld(instanceUid: string, run: Run): Promise<UpdateState> {
    if (run.next?.served !== true) return "gone";
    return (await this.#stateOfYoung(instanceUid)) ?? "gone";
  }

  async #afterServing({ run }: Both, instanceUid: string): Promise<UpdateState> {
    const { clock } = this.#parts.context;
    const old = await monitorOf(this.#parts, instanceUid);
    for (const end = clock.monotonic() + SETTLE_MS; ; await sleep(clock, LOOK_AGAIN_MS)) {
      const [status, migration] = await Promise.all([queryStatus(old), queryMigrate(old)]);
      const underWay = isUnderWay(migration.status) || isSettling(migration, status);
      if (underWay && status.running) return "ready";
      if (!underWay) return status.status === "postmigrate" ? ((await this.#stateOfYoung(instanceUid)) ?? "old") : "old";
      // the guest stands still for a new one that hangs: without that it goes on
      if (clock.monotonic() >= end) await this.#endNext(instanceUid);
      if (clock.monotonic() >= end + SETTLE_MS) throw new Error(`handing over to ${run?.next?.runtimeVersion} does not end`);
    }
  }

  /** Undefined: it has not got the guest. */
  async #stateOfYoung(instanceUid: string): Promise<"held" | "new" | undefined> {
    const young = await this.#connect(instanceUid);
    const [status, migration] = await Promise.all([queryStatus(young), queryMigrate(young)]);
    if (status.running) return "new";
    return migration.status === "completed" && status.status !== "inmigrate" ? "held" : undefined;
  }

  /** To the new one's monitor, unless its process ends instead. */
  async #connect(instanceUid: string): Promise<QmpSession> {
    const known = this.#young.get(instanceUid);
    if (known !== undefined && !known.isClosed) return known;
    const { clock, paths, children } = this.#parts.context;
    const at = (name: string): string => join(paths.instanceVm(instanceUid), nextName(name));
    const ended = children.get(nextKey(instanceUid))?.ended.then(({ code, signal }) => {
      throw new Error(`QEMU ended with ${signal ?? `exit code ${code}`}`);
    });
    const connecting = QmpSession.connect(at(HANDED.qmp.name), { clock, greetingMs: DEADLINE.greeting }).catch(() =>
      // an agent that is just ending may hold the first
      QmpSession.connect(at(HANDED.qmp2.name), { clock, greetingMs: DEADLINE.ask }),
    );
    const session = await within(
      ended === undefined ? connecting : Promise.race([connecting, ended]),
      DEADLINE.greeting + DEADLINE.ask,
      clock,
    );
    this.#young.set(instanceUid, session);
    return session;
  }

  /** It runs the guest: from here on it is the instance's QEMU for everybody. */
  async #taken(instanceUid: string, young: QmpSession): Promise<void> {
    const { context } = this.#parts;
    const run = (await context.notes.read(instanceUid))?.run;
    if (run !== undefined) await noteTaken(context, instanceUid, run);
    await takeNames(context.paths, instanceUid);
    this.#young.delete(instanceUid);
    context.monitors.adopt(instanceUid, young);
    context.guestAgents.moved(instanceUid);
    context.log.info({ instanceUid }, "the guest runs in another QEMU");
  }

  async #goOnInOld(instanceUid: string): Promise<void> {
    const { context } = this.#parts;
    const before = await lookAtBoth(context, instanceUid);
    if (before.run?.previous !== undefined) throw new Error("the guest runs in its new QEMU by now");
    if (before.run?.next?.served === true && before.next !== undefined && (await this.#hasRun(instanceUid)))
      throw new Error("the guest runs in its new QEMU by now");
    await this.#endNext(instanceUid);
    const { process } = await lookAtBoth(context, instanceUid);
    if (process !== undefined) await goOnInOld(this.#parts, instanceUid, (ms) => sleep(context.clock, ms));
  }

  /** One that does not answer never got `cont`: whoever sends it waits for the answer. */
  async #hasRun(instanceUid: string): Promise<boolean> {
    const known = this.#young.get(instanceUid);
    if (known === undefined || known.isClosed) return false;
    return queryStatus(known).then(
      ({ running }) => running,
      () => false,
    );
  }

  async #endNext(instanceUid: string): Promise<void> {
    this.#forgetYoung(instanceUid);
    await endNext(this.#parts.context, instanceUid);
  }

  #forgetYoung(instanceUid: string): void {
    this.#young.get(instanceUid)?.close();
    this.#young.delete(instanceUid);
  }

  /** With the new one's own words where it has ended. */
  async #whyNot(instanceUid: string, run: Run, cause: unknown): Promise<unknown> {
    const { context } = this.#parts;
    try {
      return await refusal(context, instanceUid, run, cause);
    } catch (error) {
      context.log.debug({ instanceUid, error: errorText(error) }, "what the new QEMU said cannot be read");
      return cause;
    }
  }

  /** Throws UserError with what stands in the way. */
  async #requireAble(instanceUid: string, run: Run): Promise<void> {
    const { context } = this.#parts;
    if (!canHandOver(run.qemuVersion))
      throw new UserError("QEMUTooOld", `${tooOld(run.qemuVersion)}; move the instance to another node, or restart it`);
    const memory = await context.cgroups.memory(run.claimUid);
    if (memory !== undefined) requireRoom(memory);
    const old = await monitorOf(this.#parts, instanceUid);
    const reasons = await blockersIn(old);
    if (reasons.length > 0)
      throw new UserError("DeviceCannotMove", `QEMU cannot hand the guest over: ${reasons.join("; ")}; restart it instead`);
  }

  #alone<T>(instanceUid: string, work: () => Promise<T>): Promise<T> {
    return this.#locks.run(`update of ${checkUid(instanceUid)}`, work);
  }
}

/** Asked in the very mode, which some devices know that others do not. */
async function blockersIn(old: QmpSession): Promise<string[]> {
  await setParameters(old, HANDING_OVER);
  try {
    return (await queryMigrate(old))["blocked-reasons"] ?? [];
  } finally {
    await setParameters(old, ORDINARY);
  }
}

/** The guest keeps the machine that it runs with. */
const machineOf = (plan: UpdatePlan, { machineType, cpuModel, accelerator, claimUid }: Run): MachinePlan => ({
  ...plan,
  machineType,
  cpuModel,
  accelerator,
  claimUid,
});
