/** From moves to figures: medians with 95 % intervals, and ratios to moves by hand. Pure. */
import { median } from "../bench/figures.ts";
import {
  casesOf,
  compare,
  present,
  SEED,
  type Choice as ChoiceOf,
  type Measure as MeasureOf,
  type Report,
  type Row,
} from "./compare.ts";
import type { AgentMemory } from "./agents.ts";
import type { Sample } from "./measure.ts";
import type { Step } from "./mover.ts";
import type { Way } from "./plan.ts";
import { medianOf, seeded, slopeOf, type Estimate, type Point } from "./statistics.ts";

const MIB = 2 ** 20;

type Measure = MeasureOf<Sample>;
type Choice = ChoiceOf<Sample>;

export const silence: Measure = (one) => one.silenceMs;
export const pause: Measure = (one) => one.pauseMs;
export const total: Measure = (one) => one.totalMs;
export const sent: Measure = (one) => one.sentBytes / MIB;

const HAND: Choice = { way: "hand" };
const DROVER: Choice = { way: "drover" };
const byHand = "by hand";

/** Drover against the hand, and libvirt against the hand. */
const againstHand = (samples: readonly Sample[]): Record<string, Row | undefined> => {
  const rows: Record<string, Row | undefined> = {};
  const goal = { of: "ratio", most: 1.15 } as const;
  const measures = [
    { name: "pause", of: pause, unit: "ms", what: "no CPU of the guest ran, by QEMU's own trace", goal },
    { name: "pingSilence", of: silence, unit: "ms", what: "longest time without an answer, seen from a third node", goal },
    {
      name: "total",
      of: total,
      unit: "ms",
      what: "from the first command, or the Migration's creation, until nothing is left to do",
      goal,
    },
    { name: "sent", of: sent, unit: "MiB", what: "sent by the source's node meanwhile" },
  ] as const;
  for (const { name, of, ...row } of measures) {
    const whole = { ...row, what: `${row.what}; mean of the cases' medians`, baselineIs: byHand };
    rows[name] = compare(samples, of, DROVER, HAND, whole);
    for (const one of casesOf(samples)) {
      const cases = [one];
      const part = { unit: row.unit, what: one, baselineIs: byHand };
      rows[`${name}.${one}`] = compare(samples, of, { ...DROVER, cases }, { ...HAND, cases }, part);
    }
    const libvirt = { unit: row.unit, what: `the same by virsh migrate --copy-storage-all`, baselineIs: byHand };
    rows[`libvirt${name[0]?.toUpperCase() ?? ""}${name.slice(1)}`] = compare(samples, of, { way: "libvirt" }, HAND, libvirt);
  }
  return rows;
};

/**
 * The last moves of Drover's, over which memory is looked at. An agent grows for its first hundred or so: V8 compiles what is done again
 * and again and notes how it is used, and malloc's heap becomes as large as it ever has to be between two collections of garbage.
 */
const MEMORY_MOVES = 50;

const single = (value: number): Estimate => ({ value, low: value, high: value });

/** What the two agents took; the figure is that of the one that took more. */
const agents = (samples: readonly Sample[]): Record<string, Row | undefined> => {
  const moves = samples.filter(({ way }) => way === "drover");
  if (moves.length === 0) return {};
  const cpu = (side: "from" | "to"): Estimate =>
    medianOf([moves.flatMap((one) => one.agents[one[side]]?.cpuMs ?? [])], seeded(SEED));
  const [source, target] = [cpu("from"), cpu("to")];
  const nodes = [...new Set(moves.flatMap(({ from, to }) => [from, to]))];
  const late = moves.map((one, number) => ({ one, number })).slice(-MEMORY_MOVES);
  const others = [...new Set(moves.flatMap((one) => Object.keys(one.agents)))].filter((node) => !nodes.includes(node));
  const kept = (one: Sample, node: string, of: keyof AgentMemory): number => one.agents[node]?.[of] ?? Number.NaN;
  const slope = (of: (one: Sample) => number): Estimate => {
    const points = late.map(({ one, number }): Point => [number, of(one)]);
    return slopeOf(
      points.filter(([, kib]) => Number.isFinite(kib)),
      seeded(SEED),
    );
  };
  /** What an agent keeps more than one that has no part in the moves: that one's growth is time's, and not theirs. */
  const more = (one: Sample, node: string, of: keyof AgentMemory): number =>
    kept(one, node, of) - (others.length === 0 ? 0 : median(others.map((other) => kept(one, other, of))));
  const steepest = (of: keyof AgentMemory): Estimate =>
    nodes
      .map((node) => slope((one) => more(one, node, of)))
      .reduce((most, one) => (one.value > most.value ? one : most), single(Number.NEGATIVE_INFINITY));
  const last = (of: keyof AgentMemory): string =>
    (
      Math.max(...nodes.map((node) => moves.findLast((one) => of in (one.agents[node] ?? {}))?.agents[node]?.[of] ?? 0)) / 1024
    ).toFixed(1);
  const over = `over the last ${late.length} of ${moves.length} moves (median of the slopes between any two)`;
  return {
    agentCpuMsPerMove: {
      unit: "ms",
      value: source.value > target.value ? source : target,
      what: "processor time of the busier agent, from before the Migration until after its end",
      goal: { of: "value", most: 400 },
    },
    agentCpuMsSource: { unit: "ms", value: source, what: "the source's agent" },
    agentCpuMsTarget: { unit: "ms", value: target, what: "the target's agent" },
    agentMemorySlope: {
      unit: "KiB/move",
      value: steepest("ownKib"),
      what: `growth of the memory of its own of the agent that grew more, garbage collected, ${over}, beyond that of an agent that has no part in them: none where the interval reaches 0; ${last("ownKib")} MiB at the end`,
      goal: { of: "low", most: 0 },
    },
    agentHeapSlope: {
      unit: "KiB/move",
      value: steepest("heapKib"),
      what: `the same of what V8 has in use; ${last("heapKib")} MiB at the end`,
    },
    ...Object.fromEntries(
      others.map((node) => [
        `agentMemorySlopeIdle.${node}`,
        {
          unit: "KiB/move",
          value: slope((one) => kept(one, node, "ownKib")),
          what: `growth of the agent that has no part in them, in the time of a move`,
        },
      ]),
    ),
  };
};

export const reportOf = (samples: readonly Sample[]): Report => {
  const small = casesOf(samples).filter((name) => name.startsWith("1g"));
  return present({
    ...againstHand(samples),
    pingSilenceNorthdFrozen: compare(
      samples,
      silence,
      { ...DROVER, kind: "frozen" },
      { ...HAND, kind: "frozen" },
      {
        unit: "ms",
        what: "longest silence with ovn-northd stopped for 4 s from the switchover on",
        baselineIs: `${byHand}, northd stopped too`,
        goal: { of: "ratio", most: 1.5 },
      },
    ),
    firstMigrationPingSilence: compare(
      samples,
      silence,
      { ...DROVER, kind: "first" },
      { ...HAND, kind: "first" },
      {
        unit: "ms",
        what: "longest silence of the first move of a fresh guest",
        baselineIs: `first, ${byHand}`,
      },
    ),
    stopAndCopySilence: compare(
      samples,
      silence,
      { way: "stop", cases: small },
      { ...DROVER, cases: small },
      {
        unit: "ms",
        what: "longest silence of a guest of 1 GiB that stands still while it is copied",
        baselineIs: "Drover",
        goal: { of: "ratio", least: 25 },
      },
    ),
    ...agents(samples),
  });
};

export interface TimelineStep {
  mark: string;
  /** Medians, ms from the guest's stop. */
  ms: number;
  /** How long this step took after the one before it. */
  stepMs: number;
}

/** Steps of Drover's switchovers: the medians of when each was done. */
export const switchover = (samples: readonly Pick<Sample, "timeline">[]): TimelineStep[] => {
  const lines = samples.flatMap(({ timeline }) => timeline ?? []);
  const names = [...new Set(lines.map(({ mark }) => mark))];
  const steps = names.map((mark) => ({ mark, ms: median(lines.filter((one) => one.mark === mark).map(({ ms }) => ms)) }));
  const sorted = steps.toSorted((a, b) => a.ms - b.ms);
  return sorted.map((step, at) => ({ ...step, stepMs: step.ms - (sorted[at - 1]?.ms ?? step.ms) }));
};

const COURSE: readonly Step[] = ["accepted", "preparing", "ready", "disks-ready", "switchover", "runs", "released", "over"];

/** Steps of whole moves in ms from their beginning: medians by hand and by Drover. */
export const courses = (samples: readonly Sample[]): { mark: Step; hand?: number; drover?: number }[] =>
  COURSE.flatMap((mark) => {
    const at = (way: Way): number[] =>
      samples
        .filter((one) => one.way === way && one.kind === "usual")
        .flatMap(({ course = [] }) => course.filter((step) => step.mark === mark).map(({ ms }) => ms));
    const [hand, drover] = [at("hand"), at("drover")];
    if (hand.length + drover.length === 0) return [];
    return [
      { mark, ...(hand.length > 0 ? { hand: median(hand) } : {}), ...(drover.length > 0 ? { drover: median(drover) } : {}) },
    ];
  });
