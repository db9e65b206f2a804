/** How much later a guest starts because Drover starts it. */
import type { Instance } from "../../crds/instance.ts";
import { bareLike, type Bare } from "./bare.ts";
import { median } from "./figures.ts";
import { isRunning, POOL, type Seen, type World } from "./world.ts";

export interface Starts {
  overheadMs: number;
  bareMs: number;
  /** Median milliseconds from apply to each step that the watch showed. */
  steps: Record<string, number>;
}

const STEPS: Record<string, (now: Instance) => boolean> = {
  claimMade: ({ status }) => status?.claim !== undefined,
  bound: ({ status }) => status?.nodeName !== undefined,
  agentKnows: ({ status }) => status?.guest !== undefined,
  running: isRunning,
};

const stepsOf = (begun: number, history: readonly Seen[]): Record<string, number> =>
  Object.fromEntries(
    Object.entries(STEPS).flatMap(([name, reached]) => {
      const first = history.find(({ now }) => reached(now));
      return first ? [[name, first.at - begun]] : [];
    }),
  );

/** Starts a guest through Drover and by itself in turn. The image is on the node before. */
export const measureStarts = async (world: World, rounds: number): Promise<Starts> => {
  await world.create("warm");
  const { now: warm } = await world.until("warm", isRunning, 180);
  let bare: Bare | undefined;
  const alone: number[] = [];
  const seen: Record<string, number>[] = [];
  try {
    bare = await bareLike(warm, POOL);
    await bare.start();
    await world.delete(["warm"]);
    for (let round = 0; round < rounds; round++) {
      const name = `start${round}`;
      alone.push(await bare.start());
      const begun = await world.create(name);
      await world.until(name, isRunning);
      seen.push(stepsOf(begun, world.history(name)));
      await world.delete([name]);
    }
  } finally {
    await bare?.remove();
  }
  const steps = Object.fromEntries(
    Object.keys(STEPS).map((step) => [step, Math.round(median(seen.flatMap((one) => one[step] ?? [])))]),
  );
  const bareMs = median(alone);
  return { overheadMs: median(seen.map(({ running = Number.NaN }) => running)) - bareMs, bareMs, steps };
};
