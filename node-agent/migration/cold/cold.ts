/**
 * A move of an instance that does not run, in the words of one that does: who owns the disks is decided by the same protocol
 * (handover/), with a marker behind the last disk in the place of the guest's memory. Bulk data goes from qemu-img to
 * qemu-storage-daemon, both confined, and never through the agents.
 */
import type {
  IncomingState,
  MoveCounters,
  MoveDriver,
  MoveEvent,
  MoveMark,
  Offer,
  OutgoingPlan,
  OutgoingState,
} from "../../instance/move.ts";
import { ColdIncoming, type ColdIncomingParts, type ColdPlan } from "./incoming.ts";
import { ColdOutgoing, type ColdOutgoingParts } from "./outgoing.ts";
import { ColdStates } from "./state.ts";
import type { NodePaths } from "../../node.ts";

export interface ColdMovesParts extends Omit<ColdIncomingParts & ColdOutgoingParts, "states" | "tell"> {
  paths: NodePaths;
}

export class ColdMoves implements MoveDriver {
  readonly #incoming: ColdIncoming;
  readonly #outgoing: ColdOutgoing;
  readonly #states: ColdStates;
  readonly #listeners = new Map<string, Set<(event: MoveEvent) => void>>();

  constructor(parts: ColdMovesParts) {
    this.#states = new ColdStates(parts.paths);
    const tell = (uid: string, event: MoveEvent): void => {
      for (const fn of this.#listeners.get(uid) ?? []) fn(event);
    };
    this.#incoming = new ColdIncoming({ ...parts, states: this.#states, tell });
    this.#outgoing = new ColdOutgoing({ ...parts, states: this.#states, tell });
  }

  receive(plan: ColdPlan, signal: AbortSignal): Promise<Offer> {
    return this.#incoming.receive(plan, signal);
  }

  incoming(instanceUid: string): Promise<IncomingState> {
    return this.#incoming.state(instanceUid);
  }

  resume(instanceUid: string): Promise<void> {
    return this.#incoming.resume(instanceUid);
  }

  closeDisks(instanceUid: string): Promise<void> {
    return this.#incoming.closeDisks(instanceUid);
  }

  abandon(instanceUid: string): Promise<void> {
    return this.#incoming.abandon(instanceUid);
  }

  outgoing(instanceUid: string): Promise<OutgoingState> {
    return this.#outgoing.state(instanceUid);
  }

  copyDisks(instanceUid: string, plan: OutgoingPlan, signal: AbortSignal): Promise<void> {
    return this.#outgoing.copyDisks(instanceUid, plan, signal);
  }

  copyMemory(instanceUid: string, plan: OutgoingPlan): Promise<void> {
    return this.#outgoing.copied(instanceUid, plan);
  }

  allowPause(instanceUid: string): Promise<void> {
    return this.#outgoing.hold(instanceUid);
  }

  finish(instanceUid: string, signal: AbortSignal): Promise<void> {
    return this.#outgoing.finish(instanceUid, signal);
  }

  giveUp(instanceUid: string): Promise<void> {
    return this.#outgoing.giveUp(instanceUid);
  }

  /** The limit is the one that the copy began with. */
  limit(): Promise<void> {
    return Promise.resolve();
  }

  throttle(): Promise<void> {
    return Promise.resolve();
  }

  postCopy(): Promise<void> {
    return Promise.reject(new Error("a guest that does not run has no memory to follow it"));
  }

  receiveRest(): Promise<Offer> {
    return Promise.reject(new Error("a guest that does not run has no memory to take"));
  }

  sendRest(): Promise<void> {
    return Promise.reject(new Error("a guest that does not run has no memory to send"));
  }

  release(): Promise<void> {
    return Promise.resolve();
  }

  counters(instanceUid: string): Promise<MoveCounters> {
    return Promise.resolve(this.#outgoing.counters(instanceUid));
  }

  onMove(instanceUid: string, fn: (event: MoveEvent) => void): () => void {
    const listeners = this.#listeners.get(instanceUid) ?? new Set();
    this.#listeners.set(instanceUid, listeners);
    listeners.add(fn);
    return () => {
      listeners.delete(fn);
      if (listeners.size === 0) this.#listeners.delete(instanceUid);
    };
  }

  marks(): readonly MoveMark[] {
    return [];
  }

  /** The move is over: nothing of it is to be remembered here. */
  forget(instanceUid: string): Promise<void> {
    return this.#states.remove(instanceUid);
  }

  /** Ends what runs for moves; they go on, or begin anew, when the next agent takes them up. */
  close(): Promise<void> {
    return this.#incoming.close();
  }
}
