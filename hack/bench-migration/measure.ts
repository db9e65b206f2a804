/** One move, watched from a third node and from both nodes that take part. */
import type { Place } from "../bench/processes.ts";
import { eventually } from "../kit/cluster.ts";
import { ask, status, statusWithin, whileEchoing } from "../kit/guest.ts";
import type { Probe } from "../lab/probe.ts";
import { agentCpuMs, keptMemory, sentBytes, type AgentMemory } from "./agents.ts";
import type { Mark, Mover } from "./mover.ts";
import type { Freezer } from "./northd.ts";
import { lastPause } from "./traces.ts";
import { DIRTY_MIB, type Case, type Kind, type Way } from "./plan.ts";

/** A move as it was seen; times in ms. */
export interface Sample {
  way: Way;
  case: string;
  kind: Kind;
  from: string;
  to: string;
  /** No CPU of the guest ran. */
  pauseMs: number;
  /** Longest time without an answer; a packet leaves every 10 ms. */
  silenceMs: number;
  /** When it began, from the guest's stop: a silence far from it is not the switchover's. */
  silentSinceStopMs: number;
  totalMs: number;
  /** What the source node sent meanwhile. */
  sentBytes: number;
  /** Of Drover's moves: what the agents took, and what they keep (after a collection of garbage), where that was read; also of agents that have no part in them. */
  agents: { [node: string]: { cpuMs: number } & Partial<AgentMemory> };
  /** Steps of the switchover, from the guest's stop. */
  timeline?: readonly Mark[];
  /** Steps of the whole move, from its beginning. */
  course?: readonly Mark[];
}

export interface Watch {
  probe: Probe;
  agents: ReadonlyMap<string, Place>;
  freezer: Freezer;
  /** Asked after each of Drover's moves: whether it is time to read what the agents keep. */
  readsMemory: () => boolean;
}

export const MOVERS = ["n1", "n2"] as const;

/** What comes late counts too. */
export const AFTER_MS = 700;
export const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A guest that rests writes nothing to its log: of the bench's guests only the one that is watched has something to do. */
export const setRest = (probe: Probe, address: string, rests: boolean): Promise<unknown> =>
  ask(probe, address, `/rest/${rests ? 1 : 0}`);

/** A guest that answers may still have lost its disk. */
export const stillWrites = async (probe: Probe, address: string): Promise<void> => {
  const { lastAcked } = await statusWithin(probe, address, 30);
  const written = async (): Promise<boolean> => (await status(probe, address)).lastAcked > lastAcked;
  await eventually(written, 10, `the guest at ${address} writes to its disk after the move`);
};

/** Moves it to the other node under the case's load. */
export const measureMove = async (
  mover: Mover,
  under: Case,
  kind: Kind,
  watch: Watch,
  how = mover.move.bind(mover),
): Promise<Sample> => {
  const { probe, agents, freezer, readsMemory } = watch;
  const from = mover.node;
  const to = MOVERS.find((node) => node !== from) ?? "";
  const places = mover.way === "drover" ? [...agents.values()] : [];
  await statusWithin(probe, mover.address, 60);
  await setRest(probe, mover.address, false);
  await ask(probe, mover.address, `/dirty/${under.dirtyMibPerSecond}/${under.dirtyMibPerSecond > 0 ? DIRTY_MIB : 0}`);
  await mover.prepare?.();
  const before = await Promise.all([sentBytes(from), ...places.map(agentCpuMs)]);
  const { silenceMs, silentFrom, result } = await whileEchoing(probe, mover.address, async () => {
    const moved = await how(to, () => (kind === "frozen" ? freezer.freeze() : undefined));
    await freezer.thawed();
    await wait(AFTER_MS);
    return moved;
  });
  await stillWrites(probe, mover.address);
  const after = await Promise.all([sentBytes(from), ...places.map(agentCpuMs)]);
  await ask(probe, mover.address, "/dirty/0/0");
  await setRest(probe, mover.address, true);
  const [sentBefore, ...usedBefore] = before;
  const [sentAfter, ...used] = after;
  const kept = places.length > 0 && readsMemory() ? await Promise.all(places.map(keptMemory)) : [];
  const use = places.flatMap(({ node }, index) => {
    const [was, is, memory] = [usedBefore[index], used[index], kept[index]];
    return was === undefined || is === undefined ? [] : [[node, { cpuMs: is - was, ...memory }] as const];
  });
  const { totalMs, timeline, course, way = mover.way } = result;
  const paused = lastPause(await mover.traces());
  return {
    way,
    case: under.name,
    kind,
    from,
    to,
    pauseMs: paused.ms,
    silenceMs,
    silentSinceStopMs: silentFrom - paused.from,
    totalMs,
    sentBytes: sentAfter - sentBefore,
    agents: Object.fromEntries(use),
    course,
    ...(timeline === undefined ? {} : { timeline }),
  };
};
