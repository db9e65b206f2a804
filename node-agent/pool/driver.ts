/** What a kind of pool must be able to do; one folder each. Nobody outside a folder knows its programs. */
import type { PoolSpec } from "../../crds/pool.ts";
import type { PoolStep, Undo } from "./steps.ts";

export interface PoolTarget {
  name: string;
  spec: PoolSpec;
  /** Of a pool that nodes share: the directory that it is, once one of them has said so. */
  directory?: string | undefined;
}

export interface PoolDriver {
  /** Looks at the node and says what is to be done; empty when the pool is as its spec wants it. */
  plan(pool: PoolTarget): Promise<PoolStep[]>;
  /** What takes the pool down and frees its bytes; empty when nothing of it is left. Volumes are checked by the caller. */
  planRemoval(pool: string): Promise<PoolStep[]>;
  /** Does one step, within a deadline; may be repeated. Returns what takes it back, where it can be taken back. */
  perform(pool: string, step: PoolStep, signal: AbortSignal): Promise<Undo | undefined>;
}

/** How a driver does each kind of step that its plans have. */
export type StepActions = {
  [K in PoolStep["step"]]?: (step: Extract<PoolStep, { step: K }>) => Promise<Undo | void>;
};

/** Does one step by the action for its kind; a step without one is a bug of the planner. */
export async function performStep(actions: StepActions, step: PoolStep): Promise<Undo | undefined> {
  const action = actions[step.step] as ((step: PoolStep) => Promise<Undo | void>) | undefined;
  if (!action) throw new Error(`this kind of pool has no step ${step.step}`);
  return (await action(step)) ?? undefined;
}
