/**
 * What a driver offers for taking one disk of an instance to another pool of the same node. Plain data; nothing here knows of
 * Migrations. Every method has a deadline, may be repeated, and looks anew: an agent that was restarted goes on where the other one died.
 */

export interface PoolMovePlan {
  /** As in MachineDisk.id. */
  disk: string;
  sizeBytes: number;
  from: { pool: string; path: string };
  /** An empty volume of the same size. */
  to: { pool: string; path: string };
  /** The claim that the guest belongs to afterwards. */
  claimUid: string;
  maxBytesPerSecond: number | undefined;
  /** The node's present one. */
  runtimeVersion: string;
}

/**
 * gone: nothing runs that has the disk. old: all is as before. copying: what is written goes to `from`, and is copied. ready: both are
 * nearly the same, and what is written goes to both. pending: both are the same for good, on the storage itself, and nothing is
 * written until `pivot` or `giveUp`. new: what is written goes to `to` alone.
 */
export type PoolMoveState = "gone" | "old" | "copying" | "ready" | "pending" | "new";

export interface PoolMoveDriver {
  state(instanceUid: string, plan: PoolMovePlan): Promise<PoolMoveState>;
  /** Resolves when ready. Goes on with what is under way. Throws when it failed: the disk is `old` then. */
  copy(instanceUid: string, plan: PoolMovePlan, signal: AbortSignal): Promise<void>;
  /** From ready to pending; resolves then. Throws when it failed: the disk is `old` then. */
  complete(instanceUid: string, plan: PoolMovePlan, signal: AbortSignal): Promise<void>;
  /** From pending to new. */
  pivot(instanceUid: string, plan: PoolMovePlan): Promise<void>;
  /** After it: `from` is let go of, and what runs belongs to the claim of the plan. */
  settle(instanceUid: string, plan: PoolMovePlan): Promise<void>;
  /** From anything but new to old; `to` is let go of. */
  giveUp(instanceUid: string, plan: PoolMovePlan): Promise<void>;
  /** The move is over: nothing of it is remembered. */
  forget(instanceUid: string): void;
  counters(instanceUid: string): Promise<{ doneBytes: number; totalBytes: number }>;
}
