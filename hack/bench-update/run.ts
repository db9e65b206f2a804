/** All updates of a plan, in its order. */
import type { Instance } from "../../crds/instance.ts";
import { isReady, NODE, type World } from "../bench/world.ts";
import { watchMoves, type MoveWatch } from "../bench-migration/drover.ts";
import { load } from "../bench-migration/guests.ts";
import { openDatabases, type Databases } from "../bench-migration/network.ts";
import { lab } from "../lab/index.ts";
import type { Probe } from "../lab/probe.ts";
import { DroverUpdates } from "./drover.ts";
import { HandUpdates } from "./hand.ts";
import { measureFloor, measureUpdate, type Sample } from "./measure.ts";
import { turns, type Case, type Plan, type Way } from "./plan.ts";
import type { Updater } from "./updater.ts";

const MIB = 2 ** 20;

interface Ground {
  world: World;
  probe: Probe;
  databases: Databases;
  moves: MoveWatch;
  /** Between which they go to and fro. */
  runtimes: readonly [string, string];
}

export interface Telling {
  keep: (sample: Sample) => Promise<void>;
  note: (text: string) => void;
}

export const words = ({
  way,
  case: of,
  kind,
  to,
  pauseMs,
  silenceMs,
  silentSinceStopMs,
  totalMs,
  extraBytes,
  keptBytes,
}: Sample): string =>
  kind === "floor"
    ? `${of} ${way.padEnd(6)} nothing done: silence ${silenceMs} ms, ${(extraBytes / MIB).toFixed(1)} MiB more at the peak`
    : `${of} ${way.padEnd(6)} to ${to}: pause ${pauseMs.toFixed(1)} ms, silence ${silenceMs} ms (from ${silentSinceStopMs.toFixed(0)}), total ${totalMs.toFixed(0)} ms, ${(extraBytes / MIB).toFixed(1)} MiB more at the peak, ${(keptBytes / MIB).toFixed(1)} after`;

const sizesOf = (cases: readonly Case[]): number[] => [...new Set(cases.map(({ memoryMib }) => memoryMib))];

const otherOf = ({ runtimes: [a, b] }: Ground, { version }: Updater): string => (version === a ? b : a);

/** One guest of each way, of one size. */
const makeGuests = async (plan: Plan, ground: Ground, under: Case): Promise<{ of: Instance; guests: Map<Way, Updater> }> => {
  const { world, databases, moves, probe } = ground;
  const name = `vm${under.memoryMib}`;
  await world.create(name, { memory: `${under.memoryMib}Mi` });
  const { now: of } = await world.until(name, isReady, 180);
  const guests = new Map<Way, Updater>();
  // By hand it is made like the instance as long as that was never updated.
  if (plan.ways.includes("hand")) guests.set("hand", await HandUpdates.like(of, databases, 1));
  if (plan.ways.includes("drover")) guests.set("drover", await DroverUpdates.of(of, moves));
  for (const { address } of guests.values()) await load(probe, address, under);
  return { of, guests };
};

const guestOf = (guests: ReadonlyMap<Way, Updater>, way: Way): Updater => {
  const guest = guests.get(way);
  if (guest === undefined) throw new Error(`there is no guest for ${way}`);
  return guest;
};

const runSize = async (plan: Plan, memoryMib: number, ground: Ground, { keep, note }: Telling): Promise<void> => {
  const cases = plan.cases.filter((one) => one.memoryMib === memoryMib);
  const [first] = cases;
  if (first === undefined) return;
  const { of, guests } = await makeGuests(plan, ground, first);
  const tell = async (sample: Sample): Promise<void> => {
    note(words(sample));
    await keep(sample);
  };
  try {
    for (const under of cases) {
      for (let round = 0; round < plan.floors; round++)
        for (const way of plan.ways) await tell(await measureFloor(guestOf(guests, way), under, ground.probe));
      for (const way of turns(plan)) {
        const guest = guestOf(guests, way);
        await tell(await measureUpdate(guest, otherOf(ground, guest), under, ground.probe));
      }
    }
  } finally {
    for (const guest of guests.values()) await guest.remove();
    await ground.world.delete([of.metadata.name]);
  }
};

/** Updates guests of the world, between two runtimes that lie on their node. */
export const runPlan = async (
  plan: Plan,
  world: World,
  probe: Probe,
  runtimes: readonly [string, string],
  telling: Telling,
): Promise<void> => {
  const databases = await openDatabases(
    lab().nodes.map(({ name }) => name),
    [NODE],
  );
  const moves = await watchMoves();
  try {
    for (const size of sizesOf(plan.cases)) await runSize(plan, size, { world, probe, databases, moves, runtimes }, telling);
  } finally {
    await moves.close();
    databases.close();
  }
};
