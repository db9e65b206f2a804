/** One guest on its way out: what this agent knows of it besides what QEMU tells. */
import type { MoveCounters, OutgoingPlan, OutgoingState } from "../../move.ts";
import { findProcess } from "../process.ts";
import { queryStatus } from "../qmp/commands.ts";
import { memoryChannel, queryMigrate, queryMirrors, setCapabilities, setParameters, type Migration } from "./commands.ts";
import { isMigration } from "./events.ts";
import { loadSecret, mirrorDisks } from "./disks.ts";
import { hasLeft } from "./left.ts";
import { divide } from "./limits.ts";
import { Meter } from "./measure.ts";
import { MOVE_DEADLINE, nameOf, PACE, ROUND_PARAMETERS, TLS } from "./names.ts";
import { monitorOf, type MoveParts } from "./parts.ts";
import { SideDoor } from "./side-door.ts";
import { UNTHROTTLED } from "./throttle.ts";

export class Outgoing {
  readonly instanceUid: string;
  readonly meter = new Meter();
  readonly door: SideDoor;
  readonly #parts: MoveParts;
  #limit: number | undefined;
  #mirrors = 0;
  #memory = false;
  #paced = false;
  /** The switchover may use what it needs. */
  #free = false;

  constructor(parts: MoveParts, instanceUid: string) {
    this.#parts = parts;
    this.instanceUid = instanceUid;
    this.door = new SideDoor(parts.context, instanceUid);
  }

  async copyDisks(plan: OutgoingPlan, signal: AbortSignal): Promise<void> {
    const { instanceUid } = this;
    this.#limit = plan.maxBytesPerSecond;
    this.#mirrors = plan.copy.length;
    await this.door.open();
    await loadSecret(this.#parts, instanceUid, plan);
    this.#parts.marks.add(instanceUid, "disks-started");
    const { mirror } = divide(this.#limit, { mirrors: this.#mirrors, memory: this.#memory });
    await mirrorDisks(this.#parts, instanceUid, plan, mirror, signal);
    this.#parts.marks.add(instanceUid, "disks-ready");
  }

  async copyMemory(plan: OutgoingPlan, signal: AbortSignal): Promise<void> {
    const { instanceUid } = this;
    this.#limit = plan.maxBytesPerSecond;
    this.#mirrors = plan.copy.length;
    this.#memory = true;
    await this.door.open();
    const qmp = await monitorOf(this.#parts, instanceUid);
    const [before, mirrors] = await Promise.all([queryMigrate(qmp), queryMirrors(qmp)]);
    if (isUnderWay(before)) return;
    const late = plan.copy.find(({ disk }) => !mirrors.some((one) => one.disk === disk && one.ready));
    if (late) throw new Error(`disk ${late.disk} is not in step with its copy`);
    await loadSecret(this.#parts, instanceUid, plan);
    this.meter.reset();
    const { until, stop } = this.#parts.events.listen(instanceUid);
    try {
      const { streams, address, ramPort, postCopy } = plan.offer;
      const { memory, mirror } = this.#shares();
      await Promise.all([
        setCapabilities(qmp, { ...OUTGOING, multifd: streams > 0, "postcopy-ram": postCopy, "auto-converge": plan.mayThrottle }),
        setParameters(qmp, {
          ...ROUND_PARAMETERS,
          ...UNTHROTTLED,
          "max-bandwidth": memory,
          // what the guest waits for goes at once all the same
          "max-postcopy-bandwidth": this.#limit ?? 0,
          "tls-creds": plan.secret ? TLS : "",
          ...(streams > 0 ? { "multifd-channels": streams } : {}),
        }),
        ...plan.copy.map(({ disk }) => qmp.execute("block-job-set-speed", { device: nameOf(disk), speed: mirror })),
      ]);
      signal.throwIfAborted();
      await qmp.execute("migrate", memoryChannel(address, ramPort));
      const started = await until(isMigration("active", "failed", "cancelled"), "reaching the target", {
        ms: MOVE_DEADLINE.connect,
        signal,
      });
      if (started.data["status"] !== "active") throw await this.failure();
      this.#parts.marks.add(instanceUid, "memory-started");
      this.meter.look(this.#parts.context.clock.monotonic(), await queryMigrate(qmp), []);
    } finally {
      stop();
    }
  }

  /** What QEMU says of why copying the memory ended. */
  async failure(): Promise<Error> {
    const { status, "error-desc": words } = await queryMigrate(await monitorOf(this.#parts, this.instanceUid));
    return new Error(`the guest could not be moved: ${words ?? `QEMU says ${status ?? "nothing"}`}`);
  }

  /** Whether there is no QEMU. */
  async isGone(): Promise<boolean> {
    const run = (await this.#parts.context.notes.read(this.instanceUid))?.run;
    return !run || run.exit !== undefined || (await findProcess(run, this.#parts.context.cgroups)) === undefined;
  }

  async state(): Promise<OutgoingState> {
    if (await this.isGone()) return "gone";
    const qmp = await monitorOf(this.#parts, this.instanceUid);
    const [migration, status] = await Promise.all([queryMigrate(qmp), queryStatus(qmp)]);
    if (hasLeft(migration, status)) return "complete";
    if (isDraining(migration)) return "draining";
    if (!isUnderWay(migration)) return "idle";
    return status.running ? "copying" : "held";
  }

  async counters(): Promise<MoveCounters> {
    const qmp = await monitorOf(this.#parts, this.instanceUid);
    const [migration, mirrors] = await Promise.all([queryMigrate(qmp), queryMirrors(qmp)]);
    return this.meter.look(this.#parts.context.clock.monotonic(), migration, mirrors);
  }

  async setLimit(bytesPerSecond: number | undefined): Promise<void> {
    this.#limit = bytesPerSecond;
    await this.#applyRates();
  }

  /** Lets the rest go as fast as it can: the guest is about to be stopped, or stands still. */
  async setFree(): Promise<void> {
    this.#free = true;
    this.#paced = false;
    await this.#applyRates();
  }

  /** Makes QEMU look for newly written pages ten times a second only: it has nothing else to do, and would burn a CPU. */
  async setPaced(paced: boolean): Promise<void> {
    if (this.#free || this.#paced === paced) return;
    this.#paced = paced;
    await this.#applyRates();
  }

  /** Whether the memory's rate is held down, so that QEMU may sleep up to 100 ms before it goes on. */
  get isSlowed(): boolean {
    return this.#paced || (this.#limit !== undefined && !this.#free);
  }

  #shares(): { memory: number; mirror: number } {
    if (this.#free) return divide(undefined, { mirrors: this.#mirrors, memory: true });
    const shares = divide(this.#limit, { mirrors: this.#mirrors, memory: this.#memory });
    return this.#paced ? { ...shares, memory: PACE } : shares;
  }

  async #applyRates(): Promise<void> {
    const qmp = await monitorOf(this.#parts, this.instanceUid);
    const { memory, mirror } = this.#shares();
    this.meter.hold(this.#paced);
    const mirrors = this.#mirrors === 0 || this.#paced ? [] : (await queryMirrors(qmp)).filter((one) => !one.concluded);
    await Promise.all([
      setParameters(qmp, { "max-bandwidth": memory }),
      ...mirrors.map(({ job }) => qmp.execute("block-job-set-speed", { device: job, speed: mirror })),
    ]);
  }
}

/**
 * switchover-ack is what keeps QEMU from stopping the guest by itself, however little is left: it waits for a word of the target
 * that this target never gives, as long as the guest runs. The switchover begins when the driver stops the guest.
 */
export const OUTGOING = {
  events: true,
  "return-path": true,
  "pause-before-switchover": true,
  "switchover-ack": true,
};

const ENDED = new Set(["none", "completed", "failed", "cancelled"]);

/** Post-copy has begun: the guest is at the target, come what may. */
export const isDraining = ({ status = "none" }: Migration): boolean => status.startsWith("postcopy-");

export const isUnderWay = ({ status = "none" }: Migration): boolean => !ENDED.has(status);
