/** A guest whose QEMU can be replaced, whoever replaces it. */
import type { Mark } from "../bench-migration/mover.ts";
import type { Way } from "./plan.ts";

export interface Updated {
  /** From the first command until nothing is left to do. */
  totalMs: number;
  /** Steps of the whole update, in ms from its beginning. */
  course: readonly Mark[];
  /** Steps while the guest stood still, in ms from its stop. */
  timeline?: readonly Mark[];
}

export interface Updater {
  readonly way: Way;
  /** IPv4, at which it answers. */
  readonly address: string;
  readonly node: string;
  /** Directory of the node with the account of the memory of all its processes. */
  readonly account: string;
  /** The runtime that it runs in. */
  readonly version: string;
  /** What the measurement needs and the update does not; before anybody watches. */
  prepare?(): Promise<void>;
  update(to: string): Promise<Updated>;
  /** What each of its QEMUs has said, with the lines of trace vm_state_notify. */
  traces(): Promise<string[]>;
  remove(): Promise<void>;
}
