/** Who may move now: limits per node and for the whole cluster, the more urgent first. */
import type { Problem } from "../instance/facts.ts";
import type { Limits } from "./settings.ts";

/** A move that has its turn. */
export interface Held {
  uid: string;
  source: string;
  /** Unknown until kube-scheduler has chosen. */
  target?: string | undefined;
}

/** A move that wants its turn, or, when it has it and its target has just become known, its place there. */
export interface Wanted extends Held {
  urgency: Urgency;
}

/** The less, the sooner. */
export interface Urgency {
  rank: number;
  createdAt: number;
}

export type Turn = { granted: true } | ({ granted: false } & Problem);

const before = (a: Wanted, b: Wanted): number =>
  a.urgency.rank - b.urgency.rank || a.urgency.createdAt - b.urgency.createdAt || a.uid.localeCompare(b.uid);

/** What those are called that wait for a slot. */
export interface Words {
  leave: string;
  underWay: string;
}

const MOVES: Words = { leave: "moves leave it now", underWay: "moves are under way now" };

class Usage {
  readonly #limits: Limits;
  readonly #words: Words;
  readonly #out = new Map<string, number>();
  readonly #in = new Map<string, number>();
  #all = 0;

  constructor(limits: Limits, held: Iterable<Held>, words: Words) {
    this.#limits = limits;
    this.#words = words;
    for (const one of held) this.add(one);
  }

  add({ source, target }: Held): void {
    this.#all += 1;
    this.#out.set(source, (this.#out.get(source) ?? 0) + 1);
    this.arrive(target);
  }

  arrive(target: string | undefined): void {
    if (target !== undefined) this.#in.set(target, (this.#in.get(target) ?? 0) + 1);
  }

  /** What it has to wait for; undefined when there is room. */
  full({ source, target }: Held): Problem | undefined {
    const { outPerNode, perCluster } = this.#limits;
    const out = this.#out.get(source) ?? 0;
    if (out >= outPerNode) return waits(`on node ${source}: ${out} of ${outPerNode} ${this.#words.leave}`);
    if (this.#all >= perCluster) return waits(`in the cluster: ${this.#all} of ${perCluster} ${this.#words.underWay}`);
    return this.fullAt(target);
  }

  fullAt(target: string | undefined): Problem | undefined {
    const { inPerNode } = this.#limits;
    const into = target === undefined ? 0 : (this.#in.get(target) ?? 0);
    if (into >= inPerNode) return waits(`on node ${target}: ${into} of ${inPerNode} moves go to it now`);
    return undefined;
  }
}

const waits = (where: string): Problem => ({ reason: "WaitingForSlot", message: `waits for a slot ${where}` });

/**
 * Who of those that want it gets a turn now, by uid, and what each of the others waits for. Pure.
 * One that cannot go holds back no other that can: it waits for a node that the other need not touch.
 */
export function admit(held: readonly Held[], wanted: readonly Wanted[], limits: Limits, words = MOVES): Map<string, Turn> {
  const asking = new Set(wanted.map(({ uid }) => uid));
  // One that has its turn and wants its place keeps its turn meanwhile.
  const usage = new Usage(
    limits,
    held.map((one) => (asking.has(one.uid) ? { ...one, target: undefined } : one)),
    words,
  );
  const begun = new Set(held.map(({ uid }) => uid));
  const turns = new Map<string, Turn>();
  for (const one of [...wanted].sort(before)) {
    const problem = begun.has(one.uid) ? usage.fullAt(one.target) : usage.full(one);
    if (problem === undefined && begun.has(one.uid)) usage.arrive(one.target);
    else if (problem === undefined) usage.add(one);
    turns.set(one.uid, problem === undefined ? { granted: true } : { granted: false, ...problem });
  }
  return turns;
}

/**
 * The turns of a term. Who holds one is read from the API each time; what is remembered here is who asked, and who was granted one
 * that does not yet stand there. Forgetting it costs the waiting ones their order for a moment, nothing else.
 */
export class Turns {
  readonly #limits: Limits;
  readonly #words: Words;
  /** Those that have their turn according to the API; they cost as much as there are limits. */
  readonly #held: () => readonly Held[];
  readonly #wanted = new Map<string, { wanted: Wanted; wake: () => void }>();
  readonly #granted = new Map<string, Held>();

  constructor(limits: Limits, held: () => readonly Held[], words: Words = MOVES) {
    this.#limits = limits;
    this.#words = words;
    this.#held = held;
  }

  /** Asks for a turn; a repeat asks the same again. `wake` is called once it is worth another try. */
  ask(wanted: Wanted, wake: () => void): Turn {
    this.#wanted.set(wanted.uid, { wanted, wake });
    const turn = this.#admit().get(wanted.uid);
    if (turn?.granted !== true) return turn ?? { granted: true };
    this.#wanted.delete(wanted.uid);
    this.#granted.set(wanted.uid, wanted);
    return turn;
  }

  /** It no longer wants a turn, or has given it back, or the API shows it: others may be next. */
  settle(uid: string): void {
    this.#wanted.delete(uid);
    this.#granted.delete(uid);
    this.wakeNext();
  }

  /** Wakes those that would get a turn now. */
  wakeNext(): void {
    if (this.#wanted.size === 0) return;
    for (const [uid, { granted }] of this.#admit()) if (granted) this.#wanted.get(uid)?.wake();
  }

  #admit(): Map<string, Turn> {
    const held = new Map([...this.#held(), ...this.#granted.values()].map((one) => [one.uid, one]));
    return admit(
      [...held.values()],
      [...this.#wanted.values()].map(({ wanted }) => wanted),
      this.#limits,
      this.#words,
    );
  }
}
