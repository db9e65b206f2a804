/** Which agents answer, told by the Leases that they renew. */
import { AGENT_LEASE_PREFIX, BOOT_ID } from "../crds/names.ts";
import type { Change, Clock, Lease, ObjectKey } from "../kube/index.ts";

const DEFAULT_SECONDS = 40;
/** By how much the clocks of two nodes may differ. */
const SKEW_MS = 30_000;

interface Leases {
  onChange(fn: (change: Change<Lease>) => void): () => void;
}

/** The present life of a node, as its Node object tells it. */
export interface NodeLife {
  /** When its kubelet last became ready, by the node's clock. */
  readySince: string | undefined;
  bootId: string | undefined;
}

interface Heart {
  renewTime: string | undefined;
  bootId: string | undefined;
  /** The life that the node was seen in when a renewal was last seen; undefined: none was seen here yet. */
  seenIn: string | undefined;
  silentAfterMs: number;
  silent: boolean;
  timer: ReturnType<Clock["setTimeout"]>;
}

/**
 * Notes for each node whether its agent renewed its Lease in time. Time is counted from when a renewal was seen here, as leader election
 * does it: clocks of nodes need not agree. Only a Lease that is seen for the first time and whose renewal is long past is taken at its
 * word, lest a new leader believes for a while in agents that are known to be silent.
 */
export class Heartbeats {
  readonly #clock: Clock;
  readonly #lifeOf: (node: string) => NodeLife | undefined;
  readonly #hearts = new Map<string, Heart>();
  readonly #silent = new Set<string>();
  readonly #listeners = new Set<(node: string) => void>();
  readonly #unwatch: () => void;

  /** @param lifeOf what is known of a node now */
  constructor(leases: Leases, clock: Clock, lifeOf: (node: string) => NodeLife | undefined) {
    this.#clock = clock;
    this.#lifeOf = lifeOf;
    this.#unwatch = leases.onChange(({ key, now }) => this.#renewed(key, now));
  }

  /** For how long the agent of this node has been silent beyond its period, in ms; undefined while it answers, or has never been heard of. */
  silence(node: string): { periodMs: number } | undefined {
    const heart = this.#hearts.get(node);
    return heart?.silent === true ? { periodMs: heart.silentAfterMs } : undefined;
  }

  /**
   * Whether the agent of this node was heard of in the node's present life; also true where none has ever been heard of. An agent
   * renews its Lease only after it has looked at all its guests: until then, what it said of them is from before a power cut. Both
   * times are the node's own; should its clock have been set meanwhile, a renewal seen here while the node was ready says the same.
   */
  isBack(node: string, { readySince, bootId }: NodeLife): boolean {
    const heart = this.#hearts.get(node);
    if (heart === undefined) return true;
    if (heart.bootId !== undefined && bootId !== undefined && heart.bootId !== bootId) return false;
    if (heart.seenIn !== undefined && heart.seenIn === readySince) return true;
    return !(Date.parse(heart.renewTime ?? "") < Date.parse(readySince ?? ""));
  }

  silentNodes(): Iterable<string> {
    return this.#silent;
  }

  /** Tells the name of a node whose agent fell silent, answers again, or comes back after its node. */
  onChange(fn: (node: string) => void): () => void {
    this.#listeners.add(fn);
    return () => void this.#listeners.delete(fn);
  }

  /** Hears no more; ends all timers. */
  stop(): void {
    this.#unwatch();
    for (const { timer } of this.#hearts.values()) this.#clock.clearTimeout(timer);
    this.#hearts.clear();
    this.#silent.clear();
  }

  #renewed(key: ObjectKey, lease: Lease | undefined): void {
    if (!key.name.startsWith(AGENT_LEASE_PREFIX)) return;
    const node = key.name.slice(AGENT_LEASE_PREFIX.length);
    const heart = this.#hearts.get(node);
    if (lease !== undefined && heart !== undefined && heart.renewTime === lease.spec?.renewTime) return;
    if (heart !== undefined) this.#clock.clearTimeout(heart.timer);
    if (lease === undefined) {
      this.#hearts.delete(node);
      this.#say(node, false);
      return;
    }
    const silentAfterMs = (lease.spec?.leaseDurationSeconds ?? DEFAULT_SECONDS) * 1000;
    const age = this.#clock.now() - Date.parse(lease.spec?.renewTime ?? "");
    const longPast = heart === undefined && age > silentAfterMs + SKEW_MS;
    const timer = this.#clock.setTimeout(() => this.#say(node, true), silentAfterMs);
    const bootId = lease.metadata.annotations?.[BOOT_ID];
    const life = this.#lifeOf(node);
    const wasBack = life === undefined || this.isBack(node, life);
    const seenIn = heart === undefined ? undefined : life?.readySince;
    const renewTime = lease.spec?.renewTime;
    this.#hearts.set(node, { renewTime, bootId, seenIn, silentAfterMs, silent: heart?.silent ?? false, timer });
    this.#say(node, longPast, life !== undefined && this.isBack(node, life) !== wasBack);
  }

  #say(node: string, silent: boolean, cameBack = false): void {
    const heart = this.#hearts.get(node);
    const changed = cameBack || this.#silent.has(node) !== silent;
    if (heart !== undefined) heart.silent = silent;
    if (silent) this.#silent.add(node);
    else this.#silent.delete(node);
    if (changed) for (const listener of this.#listeners) listener(node);
  }
}
