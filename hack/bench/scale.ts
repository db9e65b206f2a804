/** What Drover's own processes take: with many instances, and with nothing happening. */
import type { Instance } from "../../crds/instance.ts";
import { cpuOver, leaderPlace, placesOf, SCRIPT, useOf, type Place } from "./processes.ts";
import type { World } from "./world.ts";

const IDLE_SECONDS = 60;
/** For what a change leaves behind to be collected, and written. */
const SETTLE_MS = 15_000;

export interface Scale {
  agentMb: number;
  operatorMb: number;
  /** Per 1,000 objects, extrapolated from the two counts. */
  operatorSlopeMb: number;
  agentSlopeMb: number;
  agentCpu: number;
  operatorCpu: number;
  launcherCpu: number;
}

const isStopped = ({ status }: Instance): boolean => status?.phase === "Stopped";

const addStopped = async (world: World, from: number, to: number): Promise<void> => {
  const names = Array.from({ length: to - from }, (_, index) => `still${from + index}`);
  await world.createMany(names, { power: "Stopped" });
  await Promise.all(names.map((name) => world.until(name, isStopped, 180)));
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
};

const largest = async (places: readonly Place[]): Promise<number> =>
  Math.max(...(await Promise.all(places.map(async (place) => (await useOf(place)).rssMb))));

/** @param running how many instances there are already; they count */
export const measureScale = async (world: World, running: number, [few, many]: readonly [number, number]): Promise<Scale> => {
  const agents = await placesOf(SCRIPT.agent);
  const launchers = await placesOf(SCRIPT.launcher);
  const leader = await leaderPlace();
  const memory = async (): Promise<{ agent: number; operator: number }> => ({
    agent: await largest(agents),
    operator: (await useOf(leader)).rssMb,
  });
  await addStopped(world, running, few);
  const [operatorCpu = Number.NaN, ...others] = await cpuOver(IDLE_SECONDS, [leader, ...agents, ...launchers]);
  const atFew = await memory();
  await addStopped(world, few, many);
  const atMany = await memory();
  const perThousand = (before: number, after: number): number => ((after - before) / (many - few)) * 1000;
  return {
    agentMb: atFew.agent,
    operatorMb: atFew.operator,
    agentSlopeMb: perThousand(atFew.agent, atMany.agent),
    operatorSlopeMb: perThousand(atFew.operator, atMany.operator),
    operatorCpu,
    agentCpu: Math.max(...others.slice(0, agents.length)),
    launcherCpu: Math.max(...others.slice(agents.length)),
  };
};
