/** What the parts of a move at one end share. */
import type { Clock } from "../../../../kube/clock.ts";
import type { MoveEvent, MoveMark } from "../../move.ts";
import { DEADLINE, type QemuContext } from "../context.ts";
import type { QmpSession } from "../qmp/session.ts";
import type { MoveEvents } from "./events.ts";

export interface MoveParts {
  context: QemuContext;
  events: MoveEvents;
  marks: Marks;
  /** Tells whoever watches the move. */
  tell: (instanceUid: string, event: MoveEvent) => void;
}

export const monitorOf = ({ context }: MoveParts, instanceUid: string): Promise<QmpSession> =>
  context.monitors.session(instanceUid, DEADLINE.ask);

/** Kept for the latest move of each instance. */
const MOST = 64;

export class Marks {
  readonly #clock: Clock;
  readonly #offset: number;
  readonly #all = new Map<string, MoveMark[]>();

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#offset = clock.now() - clock.monotonic();
  }

  add(instanceUid: string, name: MoveMark["name"]): void {
    const first = name === "listening" || name === "disks-started";
    const marks = first ? [] : (this.#all.get(instanceUid) ?? []);
    this.#all.delete(instanceUid); // the latest move is the last in the map
    this.#all.set(instanceUid, [...marks, { name, at: this.#offset + this.#clock.monotonic() }].slice(-MOST));
    const oldest = this.#all.keys().next().value;
    if (this.#all.size > MOST && oldest !== undefined) this.#all.delete(oldest);
  }

  of(instanceUid: string): readonly MoveMark[] {
    return this.#all.get(instanceUid) ?? [];
  }
}
