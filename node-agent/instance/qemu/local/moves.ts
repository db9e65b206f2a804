/**
 * One disk of a running guest goes to another pool of its node, inside its QEMU: mirrored, brought to a point at which both are the
 * same and nothing writes (`pending`), then exchanged. The guest's CPUs run on all the time.
 */
import type { PoolMoveDriver, PoolMovePlan, PoolMoveState } from "../../pool-move.ts";
import { UserError } from "../../../errors.ts";
import { canBypassCache } from "../checks.ts";
import type { Run } from "../context.ts";
import type { Locks } from "../locks.ts";
import { endMirrors } from "../move/give-up.ts";
import { queryMirrors, type MirrorJob } from "../move/commands.ts";
import { diskOf, MOVE_DEADLINE, nameOf } from "../move/names.ts";
import { monitorOf, type MoveParts } from "../move/parts.ts";
import { checkUid } from "../notes.ts";
import { findProcess } from "../process.ts";
import type { QmpEvent, QmpSession } from "../qmp/session.ts";
import { belongTo } from "./claim.ts";
import { fileInside, insertedDisk, otherPair, queryDisks, removeOther, volumeNodes } from "./nodes.ts";
import { addToView, removeFromView, type Viewer } from "./view.ts";

const DEADLINE = { deadlineMs: MOVE_DEADLINE.giveUp };

export class QemuPoolMoves implements PoolMoveDriver {
  readonly #parts: MoveParts;
  readonly #locks: Locks;

  /** `locks` are the driver's own. */
  constructor(parts: MoveParts, locks: Locks) {
    this.#parts = parts;
    this.#locks = locks;
  }

  async state(instanceUid: string, plan: PoolMovePlan): Promise<PoolMoveState> {
    if ((await this.#find(instanceUid)) === undefined) return "gone";
    const qmp = await monitorOf(this.#parts, instanceUid);
    const [job, { file }] = [await jobOf(qmp, plan.disk), await insertedDisk(qmp, plan.disk)];
    if (file === fileInside(plan.to, plan.disk)) return "new";
    if (job === undefined || job.concluded) return "old";
    if (job.pending) return "pending";
    return job.ready ? "ready" : "copying";
  }

  copy(instanceUid: string, plan: PoolMovePlan, signal: AbortSignal): Promise<void> {
    return this.#alone(instanceUid, async () => {
      const { viewer, run } = await this.#running(instanceUid, plan);
      if (!canWriteBoth(run.qemuVersion)) throw tooOld(run.qemuVersion);
      const qmp = await monitorOf(this.#parts, instanceUid);
      const { until, stop } = this.#parts.events.listen(instanceUid);
      try {
        let job = await jobOf(qmp, plan.disk);
        if (job?.concluded === true) await qmp.execute("job-dismiss", { id: job.job });
        if (job === undefined || job.concluded) {
          await addToView(this.#parts.context.paths, viewer, plan.to);
          signal.throwIfAborted();
          await startMirror(qmp, plan);
          job = await jobOf(qmp, plan.disk);
        }
        if (job?.ready !== true && job?.pending !== true) {
          const end = await until(isAbout(plan.disk), `copying disk ${plan.disk}`, { signal });
          if (end.name !== "BLOCK_JOB_READY") throw await failure(qmp, plan.disk, end);
        }
        await writeBoth(qmp, plan.disk);
      } finally {
        stop();
      }
    });
  }

  complete(instanceUid: string, plan: PoolMovePlan, signal: AbortSignal): Promise<void> {
    return this.#alone(instanceUid, async () => {
      const qmp = await monitorOf(this.#parts, instanceUid);
      const { until, stop } = this.#parts.events.listen(instanceUid);
      try {
        const job = await jobOf(qmp, plan.disk);
        if (job?.pending === true) return;
        if (job?.ready !== true) throw new Error(`disk ${plan.disk} is not in step with its copy`);
        await writeBoth(qmp, plan.disk);
        // what is left is little, and the guest waits for it
        await qmp.execute("block-job-set-speed", { device: job.job, speed: 0 });
        await qmp.execute("block-job-complete", { device: job.job });
        const end = await until(isAbout(plan.disk, "BLOCK_JOB_PENDING"), `bringing disk ${plan.disk} in step`, {
          ms: MOVE_DEADLINE.switchover,
          signal,
        });
        if (end.name !== "BLOCK_JOB_PENDING") throw await failure(qmp, plan.disk, end);
      } finally {
        stop();
      }
    });
  }

  pivot(instanceUid: string, plan: PoolMovePlan): Promise<void> {
    return this.#alone(instanceUid, async () => {
      const qmp = await monitorOf(this.#parts, instanceUid);
      const { until, stop } = this.#parts.events.listen(instanceUid);
      try {
        const job = await jobOf(qmp, plan.disk);
        if (job?.pending !== true) return;
        await qmp.execute("job-finalize", { id: job.job }, { deadlineMs: MOVE_DEADLINE.switchover });
        const end = await until(isAbout(plan.disk), `exchanging disk ${plan.disk}`, { ms: MOVE_DEADLINE.switchover });
        if (end.name !== "BLOCK_JOB_COMPLETED" || end.data["error"] !== undefined) throw await failure(qmp, plan.disk, end);
      } finally {
        stop();
      }
    });
  }

  settle(instanceUid: string, plan: PoolMovePlan): Promise<void> {
    return this.#alone(instanceUid, async () => {
      const { run, viewer } = await this.#running(instanceUid, plan);
      await belongTo(this.#parts.context, instanceUid, { run, pid: viewer.pid, claimUid: plan.claimUid });
      await this.#letGo(instanceUid, plan, viewer, plan.from.pool);
    });
  }

  giveUp(instanceUid: string, plan: PoolMovePlan): Promise<void> {
    return this.#alone(instanceUid, async () => {
      if ((await this.#find(instanceUid)) === undefined) return;
      const { viewer } = await this.#running(instanceUid, plan);
      await this.#letGo(instanceUid, plan, viewer, plan.to.pool);
    });
  }

  /** QEMU itself is asked each time. */
  forget(): void {
    return;
  }

  async counters(instanceUid: string): Promise<{ doneBytes: number; totalBytes: number }> {
    const mirrors = await queryMirrors(await monitorOf(this.#parts, instanceUid));
    const sum = (of: (job: MirrorJob) => number): number => mirrors.reduce((all, job) => all + of(job), 0);
    return { doneBytes: sum(({ doneBytes }) => doneBytes), totalBytes: sum(({ totalBytes }) => totalBytes) };
  }

  /** Ends the job, closes the volume that the device does not have, and takes this pool out of QEMU's view if no disk is in it. */
  async #letGo(instanceUid: string, { disk }: PoolMovePlan, viewer: Viewer, pool: string): Promise<void> {
    const listening = this.#parts.events.listen(instanceUid);
    try {
      const qmp = await monitorOf(this.#parts, instanceUid);
      await endMirrors(qmp, listening, { force: true });
      await removeOther(qmp, disk, await insertedDisk(qmp, disk), DEADLINE);
      const files = [...(await queryDisks(qmp)).values()].map(({ file }) => file);
      if (files.some((file) => file.startsWith(`/disks/${pool}/`))) return;
      await removeFromView(this.#parts.context.paths, viewer, pool);
    } finally {
      listening.stop();
    }
  }

  async #find(instanceUid: string): Promise<{ run: Run; pid: number; uid: number } | undefined> {
    const { notes, cgroups } = this.#parts.context;
    const note = await notes.read(checkUid(instanceUid));
    if (note?.run === undefined || note.run.exit !== undefined) return undefined;
    const process = await findProcess(note.run, cgroups);
    return process && { run: note.run, pid: process.pid, uid: note.identity.uid };
  }

  async #running(instanceUid: string, { runtimeVersion }: PoolMovePlan): Promise<{ run: Run; viewer: Viewer }> {
    const found = await this.#find(instanceUid);
    if (found === undefined) throw new UserError("GuestEnded", "the guest does not run any more");
    const { run, pid, uid } = found;
    return { run, viewer: { pid, uid, runtimeVersion } };
  }

  #alone<T>(instanceUid: string, work: () => Promise<T>): Promise<T> {
    return this.#locks.run(`move of ${checkUid(instanceUid)}`, work);
  }
}

/** Whether this QEMU (such as 10.0.13) can begin to mirror in the background and then write to both: since 8.2. Pure. */
export function canWriteBoth(version: string | undefined): boolean {
  const [major = 0, minor = 0] = (version ?? "").split(".").map(Number);
  return major > 8 || (major === 8 && minor >= 2);
}

const tooOld = (version: string | undefined): UserError =>
  new UserError(
    "QEMUTooOld",
    `this guest runs in QEMU ${version ?? "of an unknown version"}, which takes a disk to another pool from 8.2 on; ` +
      "restart it (power Stopped, then Running) to get the node's present QEMU, or stop it and use mode: Cold",
  );

async function startMirror(qmp: QmpSession, plan: PoolMovePlan): Promise<void> {
  const { disk, to, maxBytesPerSecond = 0 } = plan;
  const now = await insertedDisk(qmp, disk);
  await removeOther(qmp, disk, now, DEADLINE);
  const pair = otherPair(disk, now);
  const direct = await canBypassCache(to.path);
  for (const node of volumeNodes(pair, fileInside(to, disk), direct)) await qmp.execute("blockdev-add", node);
  await qmp.execute("blockdev-mirror", {
    "job-id": nameOf(disk),
    device: now.node,
    target: pair.disk,
    sync: "full",
    // until it is in step the guest's writes do not wait for the copy
    "copy-mode": "background",
    speed: maxBytesPerSecond,
    // the exchange waits for the agent's note, and its end stays to be seen, also by an agent that was away
    "auto-finalize": false,
    "auto-dismiss": false,
  });
}

/** From here on what the guest writes is on both before it is told so: it cannot write faster than is copied. */
const writeBoth = (qmp: QmpSession, disk: string): Promise<unknown> =>
  qmp.execute("block-job-change", { id: nameOf(disk), type: "mirror", "copy-mode": "write-blocking" });

const jobOf = async (qmp: QmpSession, disk: string): Promise<MirrorJob | undefined> =>
  (await queryMirrors(qmp)).find((one) => one.disk === disk);

const ENDS = ["BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"];

const isAbout = (disk: string, ...more: string[]): ((event: QmpEvent) => boolean) => {
  const names = new Set([...ENDS, ...(more.length > 0 ? more : ["BLOCK_JOB_READY"])]);
  return ({ name, data }) => names.has(name) && diskOf(String(data["device"] ?? data["id"])) === disk;
};

async function failure(qmp: QmpSession, disk: string, end: QmpEvent): Promise<Error> {
  const error = end.data["error"] ?? (await jobOf(qmp, disk))?.error;
  return new Error(`disk ${disk} could not be copied: ${typeof error === "string" ? error : "the copying was cancelled"}`);
}
