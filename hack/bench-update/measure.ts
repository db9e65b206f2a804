/** One update, watched from another node and from the account of the guest's memory. */
import { AFTER_MS, stillWrites, wait } from "../bench-migration/measure.ts";
import { DIRTY_MIB } from "../bench-migration/plan.ts";
import { lastPause } from "../bench-migration/traces.ts";
import { ask, statusWithin, whileEchoing } from "../kit/guest.ts";
import type { Probe } from "../lab/probe.ts";
import { watchMemory } from "./memory.ts";
import type { Case, Kind, Way } from "./plan.ts";
import type { Updated, Updater } from "./updater.ts";

/** An update as it was seen; times in ms. */
export interface Sample extends Updated {
  way: Way;
  case: string;
  kind: Kind;
  /** Runtimes. */
  from: string;
  to: string;
  /** No CPU of the guest ran. */
  pauseMs: number;
  /** Longest time without an answer; a packet leaves every 10 ms. */
  silenceMs: number;
  /** When it began, from the guest's stop: a silence far from it is not the update's. */
  silentSinceStopMs: number;
  /** Peak of what is charged to the guest's cgroup, less what was before; page cache left out. */
  extraBytes: number;
  /** What is still there more than before when it is over. */
  keptBytes: number;
}

/** About as long as an update is watched. */
const FLOOR_MS = 2_500;
const DECIMALS = 10;
const round = (ms: number): number => Math.round(ms * DECIMALS) / DECIMALS;

/** Watches the guest while `work` is done to it, under the case's load. */
const watched = async <T>(updater: Updater, under: Case, probe: Probe, work: () => Promise<T>) => {
  await statusWithin(probe, updater.address, 60);
  const load = under.dirtyMibPerSecond;
  await ask(probe, updater.address, `/dirty/${load}/${load > 0 ? DIRTY_MIB : 0}`);
  const memory = await watchMemory(updater.node, updater.account);
  const seen = await whileEchoing(probe, updater.address, async () => {
    const result = await work();
    await wait(AFTER_MS);
    return result;
  });
  const { before, peak, after } = await memory.stop();
  await stillWrites(probe, updater.address);
  await ask(probe, updater.address, "/dirty/0/0");
  return { ...seen, extraBytes: peak - before, keptBytes: after - before };
};

/** Replaces its QEMU by that of another runtime. */
export const measureUpdate = async (updater: Updater, to: string, under: Case, probe: Probe): Promise<Sample> => {
  const { way, version: from } = updater;
  await updater.prepare?.();
  const { silenceMs, silentFrom, result, ...memory } = await watched(updater, under, probe, () => updater.update(to));
  const paused = lastPause(await updater.traces());
  return {
    way,
    case: under.name,
    kind: "usual",
    from,
    to,
    pauseMs: round(paused.ms),
    silenceMs,
    silentSinceStopMs: round(silentFrom - paused.from),
    ...memory,
    ...result,
    totalMs: round(result.totalMs),
  };
};

/** The same with nothing done. */
export const measureFloor = async (updater: Updater, under: Case, probe: Probe): Promise<Sample> => {
  const { way, version } = updater;
  const { silenceMs, result: _, silentFrom: __, ...memory } = await watched(updater, under, probe, () => wait(FLOOR_MS));
  return {
    way,
    case: under.name,
    kind: "floor",
    from: version,
    to: version,
    pauseMs: 0,
    silenceMs,
    silentSinceStopMs: 0,
    totalMs: 0,
    course: [],
    ...memory,
  };
};
