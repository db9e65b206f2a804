/**
 * What a driver offers for giving a running guest another process of another runtime, in place: on its node, in its claim, with its memory,
 * disks, NICs and names. Plain data; nothing here knows of Migrations. Every method has a deadline, may be repeated, and looks anew: an
 * agent that was restarted goes on where the other one died.
 */
import type { MachinePlan } from "./driver.ts";

/** The machine stays what it is: type, CPU, accelerator and claim are those that the guest runs with. */
export type UpdatePlan = Omit<MachinePlan, "machineType" | "cpuModel" | "accelerator" | "claimUid">;

/**
 * gone: nothing that runs the guest, or could. old: only the old process can run it. ready: it runs, and the new one waits. held: it stands
 * still, and the new one has all of it and has not run. new: it runs, or may have run, in the new one.
 */
export type UpdateState = "gone" | "old" | "ready" | "held" | "new";

export interface SwitchOptions {
  /** The guest goes on in the old process when it would stand still for longer; ms. */
  maxPauseMs: number;
  /**
   * Called while the guest stands still, once the new process has all of it; from then on only that one may run it. To be preceded by
   * `stillThere`, which throws when that process has ended meanwhile: then the guest can go on in the old one.
   */
  noted: (stillThere: () => void) => Promise<void>;
}

/** A step as it happened. */
export interface UpdateMark {
  name: "sent" | "listening" | "stopped" | "loaded" | "complete" | "noted" | "continued" | "resumed";
  /** ms since 1970. */
  at: number;
}

export interface UpdateDriver {
  state(instanceUid: string): Promise<UpdateState>;
  /** From old to ready. Throws UserError with what is missing, or with the new process's own words; the guest runs on as before. */
  prepare(plan: UpdatePlan, signal: AbortSignal): Promise<void>;
  /** From ready to new. When it throws before `noted`, the guest goes on in the old process, and the new one is gone. */
  switchOver(instanceUid: string, options: SwitchOptions): Promise<void>;
  /** From held to new, once that is noted: for an agent that died in between. */
  run(instanceUid: string): Promise<void>;
  /** After it, and for a new process that died after it may have run: the old one ends, the new one has its names. */
  finish(instanceUid: string): Promise<void>;
  /** From anything but new to old: the new process ends first, then the old one runs. */
  giveUp(instanceUid: string): Promise<void>;
  /** Whether the guest stands still for it, or will at once. */
  isSwitching(instanceUid: string): boolean;
  /** Of the last switch that this agent did; the times of `stopped` and `resumed` are those of the processes themselves. */
  marks(instanceUid: string): readonly UpdateMark[];
  /** Calls back when `state` may be another one, until the returned function is called. */
  onUpdate(instanceUid: string, fn: () => void): () => void;
}
