/**
 * What a driver offers for moving a running guest to another node. Plain data; nothing here knows of Migrations or of the other
 * agent. Every method has a deadline, may be repeated, and looks at QEMU anew: an agent that was restarted goes on where the
 * other one died. Sizes are bytes, rates bytes per second, times ms.
 */
import type { MachinePlan } from "./driver.ts";

/** TLS with a key that both ends know: made for one attempt, never stored beyond it. */
export interface MoveSecret {
  /** Name of the key: letters, digits, - and _. */
  identity: string;
  /** Hex, 32 to 128 digits. */
  key: string;
}

/** A disk that lies on the source only; the target has an empty volume of the same size. */
export interface CopiedDisk {
  /** As in MachineDisk.id. */
  disk: string;
  sizeBytes: number;
}

export interface IncomingPlan {
  /** The same machine as at the source, in the target's claim. */
  machine: MachinePlan;
  copy: readonly CopiedDisk[];
  /** Where the source reaches this node. */
  address: string;
  /** First and last port to choose from. */
  ports: readonly [number, number];
  secret: MoveSecret | undefined;
  /** Connections for memory; 0: the one that everything else uses too. Must be the same at both ends. */
  streams: number;
}

/** What the source needs to know; disks are exported under their ids. */
export interface Offer {
  address: string;
  ramPort: number;
  /** Unset when no disk is copied. */
  diskPort?: number | undefined;
  streams: number;
  /** Whether the target could take pages on demand (post-copy). */
  postCopy: boolean;
}

/**
 * waiting: nothing or not all has arrived. complete: all has arrived, its CPUs are stopped. running: `resume` was done.
 * gone: no QEMU that receives, or received, is here.
 */
export type IncomingState = "waiting" | "complete" | "running" | "gone";

export interface OutgoingPlan {
  offer: Offer;
  copy: readonly CopiedDisk[];
  secret: MoveSecret | undefined;
  /** For memory and disks together; undefined: as fast as it goes. */
  maxBytesPerSecond: number | undefined;
  /** Whether its CPUs may come to be slowed: that has to be known before its memory is copied. */
  mayThrottle: boolean;
}

/**
 * idle: no memory is being copied (disks may be). copying: the guest runs. held: its CPUs are stopped for the switchover, which
 * is not complete: `finish` or `giveUp` comes next. complete: the target has everything, this guest must never run again unless
 * `giveUp` is called, and that only as long as the target never ran. draining (post-copy): as complete, but memory still leaves;
 * this QEMU must live until complete, and `giveUp` is refused. gone: there is no QEMU.
 */
export type OutgoingState = "idle" | "copying" | "held" | "draining" | "complete" | "gone";

export interface MoveCounters {
  disk: { doneBytes: number; totalBytes: number };
  memory: {
    doneBytes: number;
    totalBytes: number;
    remainingBytes: number;
    bytesPerSecond: number;
    dirtyBytesPerSecond: number;
    rounds: number;
    /** Share of its time that the guest is kept from running, by `throttle`. */
    throttlePercent?: number;
  };
  /** How long the guest would stand still if it were stopped now; undefined: not known yet. */
  expectedPauseMs: number | undefined;
  /** Once complete: from the stop of the CPUs to the end at this side; the target's `resume` comes on top. */
  downtimeMs?: number;
}

/** `at` is QEMU's own clock, ms since 1970. */
export type MoveEvent =
  /** `outgoing` or `incoming` would tell something else. */
  | { kind: "state" }
  /** The CPUs have stopped, or run again. */
  | { kind: "stop" | "resume"; at: number }
  | { kind: "disk-ready" | "disk-failed"; disk: string; message?: string }
  /** Another pass over memory begins; `counters` has a new measure of the guest's writing. */
  | { kind: "round" }
  /** CPUs stopped, nearly all copied: QEMU waits for `finish`. */
  | { kind: "held" }
  | { kind: "complete" }
  /** Post-copy: the connection broke while memory was missing at the target; it waits for `receiveRest` and `sendRest`. */
  | { kind: "interrupted" }
  /** QEMU gave up copying the memory; the guest runs on here once `giveUp` is through. */
  | { kind: "failed"; message: string }
  /** QEMU's process, or the connection to it, has ended. */
  | { kind: "ended" };

/** A step of a move as it happened. */
export interface MoveMark {
  name:
    | "listening"
    | "disks-started"
    | "disks-ready"
    | "memory-started"
    | "pause-allowed"
    | "stopped"
    | "held"
    | "disks-finished"
    | "continued"
    | "complete"
    | "resumed";
  /** ms since 1970 by this agent's monotonic clock: marks of one agent may be subtracted from each other. */
  at: number;
}

export interface MoveDriver {
  /**
   * Starts a QEMU that waits for a guest, in the target's claim. The instance is prepared, volumes and taps are there. Repeated
   * while that QEMU lives: the same offer. Throws UserError with what is missing; nothing runs then.
   */
  receive(plan: IncomingPlan, signal: AbortSignal): Promise<Offer>;
  incoming(instanceUid: string): Promise<IncomingState>;
  /** Lets the CPUs run. Throws unless complete (or running already). */
  resume(instanceUid: string): Promise<void>;
  /** After `resume`, and after the source has let go of its ends: exports, server and secrets away; an ordinary guest from here. */
  closeDisks(instanceUid: string): Promise<void>;
  /** Ends the QEMU that received, and takes its note back. Throws when that guest has been resumed: it is somebody's by now. */
  abandon(instanceUid: string): Promise<void>;

  outgoing(instanceUid: string): Promise<OutgoingState>;
  /** Resolves when every disk is in step with its copy, and stays so. Repeated: goes on, never twice. */
  copyDisks(instanceUid: string, plan: OutgoingPlan, signal: AbortSignal): Promise<void>;
  /** Starts to copy memory; the guest runs until `allowPause`, however idle it is. Resolves when started. */
  copyMemory(instanceUid: string, plan: OutgoingPlan, signal: AbortSignal): Promise<void>;
  /** From here the guest may be stopped, as soon as that is expected to last no longer than this. Resolves at once. */
  allowPause(instanceUid: string, maxPauseMs: number): Promise<void>;
  /**
   * Completes what is held (waits for that if need be): disks in step for the last time, the rest of the guest sent. Resolves when
   * complete (or draining). Throws when QEMU failed; the guest then stands still until `giveUp`.
   */
  finish(instanceUid: string, signal: AbortSignal): Promise<void>;
  /** Another limit for what is under way; undefined: none. Never slows the switchover. */
  limit(instanceUid: string, bytesPerSecond: number | undefined): Promise<void>;
  /** Keeps the guest from writing faster than can be copied, by giving it less CPU time; for a move whose plan says that it may be. */
  throttle(instanceUid: string): Promise<void>;
  /** The guest may go on at the target before all its memory is there. Throws where the offer said no. */
  postCopy(instanceUid: string): Promise<void>;
  /** Target, in post-copy: lets go of a connection that broke, and listens for the rest of the memory. May be repeated. */
  receiveRest(instanceUid: string): Promise<Offer>;
  /** Source, in post-copy: sends the rest of the memory over a new connection. Resolves when it is on its way. */
  sendRest(instanceUid: string, offer: Pick<Offer, "address" | "ramPort">): Promise<void>;
  /**
   * Undoes a move at the source within its deadline, dead link or not: nothing of it is left and the guest runs (unless it stood
   * still before). Also from complete: the caller knows that the target never ran.
   */
  giveUp(instanceUid: string): Promise<void>;
  /** After complete: lets go of the target's disks, so that it can close them. The guest stays stopped. */
  release(instanceUid: string): Promise<void>;
  counters(instanceUid: string): Promise<MoveCounters>;
  /** Calls back until the returned function is called; connects to QEMU if nobody has. */
  onMove(instanceUid: string, fn: (event: MoveEvent) => void): () => void;
  /** Steps of the latest move that this agent took part in, oldest first. */
  marks(instanceUid: string): readonly MoveMark[];
}
