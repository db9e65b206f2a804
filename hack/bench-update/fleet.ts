/** A whole node's guests, rolled out by Drover itself after an upgrade of the chart. */
import type { Instance } from "../../crds/instance.ts";
import type { Migration } from "../../crds/migration.ts";
import { isReady, NAMESPACE, type World } from "../bench/world.ts";
import { get } from "../kit/cluster.ts";
import { upgradeDrover } from "../kit/upgrade.ts";

const READY_SECONDS = 420;
const ROLLED_OUT_SECONDS = 400;

export interface FleetSeen {
  guests: number;
  /** From the first update's beginning until the last guest is seen to run in the new runtime. */
  seconds: number;
  /** Of each guest, by Drover's own word. */
  pauses: number[];
}

const runsIn =
  (version: string) =>
  ({ status }: Instance): boolean =>
    status?.guest?.runtimeVersion === version && status.guest.state === "Running";

/** Guests of one node, ready in the runtime that is current now; they are rolled out when the chart names another one. */
export const measureFleet = async (
  world: World,
  guests: number,
  values: Record<string, string>,
  to: string,
): Promise<FleetSeen> => {
  const names = Array.from({ length: guests }, (_, index) => `fleet${index}`);
  try {
    await world.createMany(names);
    await Promise.all(names.map((name) => world.until(name, isReady, READY_SECONDS)));
    const upgraded = upgradeDrover(values);
    const ends = await Promise.all(names.map((name) => world.until(name, runsIn(to), ROLLED_OUT_SECONDS)));
    await upgraded;
    const { items } = await get<{ items: Migration[] }>("dmig", NAMESPACE);
    const all = items.filter(({ spec, status }) => names.includes(spec.instance) && status?.phase === "Succeeded");
    const begun = Math.min(...all.map(({ metadata }) => Date.parse(metadata.creationTimestamp ?? "")));
    const end = performance.timeOrigin + Math.max(...ends.map(({ at }) => at));
    return { guests, seconds: (end - begun) / 1000, pauses: all.flatMap(({ status }) => status?.source?.pauseMs ?? []) };
  } finally {
    await world.delete(names);
  }
};
