/** A guest that can be moved, whatever moves it. */
import type { Way } from "./plan.ts";

/** Of a whole move; those that every way has, and those that only Drover's have. */
export type Step = "accepted" | "preparing" | "ready" | "disks-ready" | "switchover" | "runs" | "released" | "over";

export interface Mark {
  mark: string;
  ms: number;
}

export interface Moved {
  /** From the first command until nothing is left to do. */
  totalMs: number;
  /** Where it is not the mover's own. */
  way?: Way;
  /** Steps of the switchover, in ms from the guest's stop. */
  timeline?: readonly Mark[];
  /** Steps of the whole move, in ms from its beginning. */
  course: readonly Mark[];
}

export interface Mover {
  readonly way: Way;
  /** IPv4, at which it answers. */
  readonly address: string;
  /** Where it runs. */
  readonly node: string;
  /** What the measurement needs and the move does not; before anybody watches. */
  prepare?(): Promise<void>;
  /** @param onSwitchover called when the guest is about to be stopped, or has just been */
  move(to: string, onSwitchover?: () => void): Promise<Moved>;
  /** What each of its QEMUs has said, with the lines of trace vm_state_notify. */
  traces(): Promise<string[]>;
  remove(): Promise<void>;
}
