/** The disk of an instance that does not run goes to another pool of its node: copied by a confined program, from file to file. */
import { UserError } from "../../errors.ts";
import type { InstanceDriver } from "../../instance/driver.ts";
import { isAlive } from "../../instance/plan.ts";
import type { PoolMoveDriver, PoolMovePlan, PoolMoveState } from "../../instance/pool-move.ts";
import { syncFile } from "../../pool/files.ts";
import type { GuestIdentity } from "../../types.ts";
import { copier, progressOf } from "../cold/programs.ts";
import { runConfined } from "../cold/run.ts";

export interface ColdPoolMovesParts {
  driver: Pick<InstanceDriver, "observe">;
  /** Whose the disks of the instance are. */
  identity: (instanceUid: string) => Promise<GuestIdentity>;
}

interface Copy {
  state: Exclude<PoolMoveState, "gone">;
  doneBytes: number;
  totalBytes: number;
  stop: AbortController;
}

/** Nothing runs that could be asked: what an agent that has ended had copied is copied once more. */
export class ColdPoolMoves implements PoolMoveDriver {
  readonly #parts: ColdPoolMovesParts;
  readonly #copies = new Map<string, Copy>();

  constructor(parts: ColdPoolMovesParts) {
    this.#parts = parts;
  }

  state(instanceUid: string): Promise<PoolMoveState> {
    return Promise.resolve(this.#copies.get(instanceUid)?.state ?? "old");
  }

  async copy(instanceUid: string, plan: PoolMovePlan, signal: AbortSignal): Promise<void> {
    const { disk, sizeBytes, from, to, maxBytesPerSecond } = plan;
    const known = this.#copies.get(instanceUid)?.state;
    if (known !== undefined && known !== "old") return;
    if (isAlive(await this.#parts.driver.observe(instanceUid)))
      throw new UserError("InstanceRuns", "the guest runs; only a stopped one can be moved by mode Cold");
    const copy: Copy = { state: "copying", doneBytes: 0, totalBytes: sizeBytes, stop: new AbortController() };
    this.#copies.set(instanceUid, copy);
    const both = AbortSignal.any([signal, copy.stop.signal]);
    try {
      await runConfined({
        program: copier(maxBytesPerSecond),
        files: [
          { path: from.path, write: false },
          { path: to.path, write: true },
        ],
        user: await this.#parts.identity(instanceUid),
        largestBytes: sizeBytes,
        secret: undefined,
        onOutput: (text) => {
          const share = progressOf(text);
          if (share !== undefined) copy.doneBytes = Math.floor(share * sizeBytes);
        },
        signal: both,
      });
      both.throwIfAborted();
      await syncFile(to.path);
    } catch (error) {
      if (this.#copies.get(instanceUid) === copy) this.#copies.delete(instanceUid);
      throw both.aborted ? error : new Error(`disk ${disk} could not be copied`, { cause: error });
    }
    copy.doneBytes = sizeBytes;
    copy.state = "ready";
  }

  complete(instanceUid: string): Promise<void> {
    return this.#step(instanceUid, "ready", "pending");
  }

  pivot(instanceUid: string): Promise<void> {
    return this.#step(instanceUid, "pending", "new");
  }

  settle(): Promise<void> {
    return Promise.resolve();
  }

  giveUp(instanceUid: string): Promise<void> {
    this.#copies.get(instanceUid)?.stop.abort();
    this.#copies.delete(instanceUid);
    return Promise.resolve();
  }

  counters(instanceUid: string): Promise<{ doneBytes: number; totalBytes: number }> {
    const { doneBytes, totalBytes } = this.#copies.get(instanceUid) ?? { doneBytes: 0, totalBytes: 0 };
    return Promise.resolve({ doneBytes, totalBytes });
  }

  forget(instanceUid: string): void {
    this.#copies.delete(instanceUid);
  }

  #step(instanceUid: string, from: PoolMoveState, to: Copy["state"]): Promise<void> {
    const copy = this.#copies.get(instanceUid);
    if (copy?.state === to) return Promise.resolve();
    if (copy?.state !== from) return Promise.reject(new Error("the disk has not been copied"));
    copy.state = to;
    return Promise.resolve();
  }
}
