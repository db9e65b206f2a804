/** What is done to a pool, step by step, and the thin part that runs the steps. */
import type { Logger } from "../../kube/logger.ts";
import { errorText } from "../errors.ts";
import { formatSize } from "./size.ts";

/** One thing to do. Plain data: a plan is compared as a whole in its test. */
export type PoolStep =
  | { step: "discard-leftover" }
  | { step: "create-file"; sizeBytes: number }
  | { step: "make-filesystem" }
  | { step: "publish-file" }
  | { step: "note" }
  | { step: "extend-file"; fromBytes: number; toBytes: number }
  | { step: "attach" }
  | { step: "refresh-loop" }
  | { step: "mount" }
  | { step: "autoclear" }
  | { step: "grow-filesystem" }
  | { step: "bind" }
  | { step: "join" }
  | { step: "mark" }
  | { step: "make-directories" }
  | { step: "unmount" }
  | { step: "detach" }
  | { step: "delete" }
  /** What cannot be done, and why; `usable`: the pool serves its disks all the same. */
  | { step: "refuse"; reason: string; message: string; usable?: boolean };

export type Refusal = Extract<PoolStep, { step: "refuse" }>;

/** A step in words, for tests and logs. */
export function describeStep(step: PoolStep): string {
  if (step.step === "create-file") return `create-file ${formatSize(step.sizeBytes)}`;
  if (step.step === "extend-file") return `extend-file ${formatSize(step.fromBytes)} -> ${formatSize(step.toBytes)}`;
  return step.step === "refuse" ? `refuse: ${step.message}` : step.step;
}

/** Takes back what a step did; called only when a later step of the same run failed. */
export type Undo = () => Promise<void>;

export interface RunOptions {
  perform: (step: PoolStep) => Promise<Undo | undefined>;
  log: Logger;
  signal?: AbortSignal | undefined;
  /** Called after every step that was done; a test ends the process in it. */
  checkpoint?: ((step: PoolStep) => void) | undefined;
}

/**
 * Runs steps in order. When one fails, those before it are undone in reverse and the failure is thrown; what could not be
 * undone is logged and left to the next plan, which starts from what is there. `refuse` steps are not run but returned.
 */
export async function runSteps(steps: readonly PoolStep[], options: RunOptions): Promise<Refusal | undefined> {
  const undos: { step: PoolStep; undo: Undo }[] = [];
  try {
    for (const step of steps) {
      options.signal?.throwIfAborted();
      if (step.step === "refuse") return step;
      const undo = await options.perform(step);
      if (undo) undos.push({ step, undo });
      options.checkpoint?.(step);
    }
    return undefined;
  } catch (error) {
    for (const { step, undo } of undos.reverse()) {
      try {
        await undo();
      } catch (failed) {
        options.log.warn({ step: describeStep(step), error: errorText(failed) }, "could not take back a step");
      }
    }
    throw error;
  }
}
