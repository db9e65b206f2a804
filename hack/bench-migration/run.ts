/** All moves of a plan, in its order. */
import type { Instance } from "../../crds/instance.ts";
import { POOL } from "../bench/world.ts";
import { inNode, lab } from "../lab/index.ts";
import { load, makeDrover, makeHand, makeLibvirt, type Ground } from "./guests.ts";
import type { HandGuest } from "./hand.ts";
import { withLibvirt, type LibvirtHosts } from "./libvirt/hosts.ts";
import { measureMove, MOVERS, setRest, type Sample, type Watch } from "./measure.ts";
import type { Mover } from "./mover.ts";
import { turns, type Case, type Kind, type Plan, type Way } from "./plan.ts";

interface Telling {
  keep: (sample: Sample) => Promise<void>;
  note: (text: string) => void;
}

const sizesOf = (cases: readonly Case[]): number[] => [...new Set(cases.map(({ memoryMib }) => memoryMib))];

const words = ({ way, case: of, kind, silenceMs, silentSinceStopMs, pauseMs, totalMs, sentBytes }: Sample): string =>
  `${of} ${kind} ${way.padEnd(7)} pause ${pauseMs.toFixed(0)} ms, silence ${silenceMs} ms (from ${silentSinceStopMs.toFixed(0)}), total ${(totalMs / 1000).toFixed(2)} s, ${(sentBytes / 2 ** 20).toFixed(0)} MiB`;

/** QEMUs and daemons of a run that was killed. */
export const endLeftovers = async (): Promise<void> => {
  const script =
    'for what in "[g]uest=hand/" "[l]ibvirtd --listen" "[g]uest=virt"; do pkill -KILL -f "$what"; done; rm -rf /var/lib/drover/bench-hand; true';
  for (const { name } of lab().nodes) await inNode(name, "sh", ["-c", script]);
};

/** One guest of each kind that the plan wants, of one size. */
class Guests {
  readonly hand: HandGuest | undefined;
  readonly drover: Mover;
  readonly libvirt: Mover | undefined;

  private constructor(drover: Mover, hand: HandGuest | undefined, libvirt: Mover | undefined) {
    this.drover = drover;
    this.hand = hand;
    this.libvirt = libvirt;
  }

  static async make(
    plan: Plan,
    ground: Ground,
    under: Case,
    hosts: LibvirtHosts | undefined,
  ): Promise<{ guests: Guests; of: Instance }> {
    const { of, guest } = await makeDrover(ground, `vm${under.memoryMib}`, under.memoryMib);
    const byHand = plan.ways.includes("hand") || plan.ways.includes("stop");
    const hand = byHand ? await makeHand(ground, of, 1) : undefined;
    const libvirt = hosts === undefined ? undefined : await makeLibvirt(ground, of, 1, hosts);
    const guests = new Guests(guest, hand, libvirt);
    for (const { address } of guests.all) {
      await load(ground.probe, address, under);
      await setRest(ground.probe, address, true);
    }
    return { guests, of };
  }

  get all(): Mover[] {
    return [this.drover, this.hand, this.libvirt].filter((one) => one !== undefined);
  }

  async measure(way: Way, under: Case, kind: Kind, watch: Watch): Promise<Sample> {
    const { hand } = this;
    if (way === "stop" && hand) return measureMove(hand, under, kind, watch, hand.stopAndCopy.bind(hand));
    const mover = this.all.find((one) => one.way === way);
    if (mover === undefined) throw new Error(`there is no guest that is moved by ${way}`);
    return measureMove(mover, under, kind, watch);
  }

  async remove(): Promise<void> {
    for (const guest of this.all) await guest.remove();
  }
}

export const runPlan = async (plan: Plan, ground: Ground, watch: Watch, { keep, note }: Telling): Promise<void> => {
  const one = async (guests: Guests, way: Way, under: Case, kind: Kind): Promise<void> => {
    const sample = await guests.measure(way, under, kind, watch);
    note(words(sample));
    await keep(sample);
  };
  const pair = plan.ways.filter((way) => way === "hand" || way === "drover");

  const ofSize = async (memoryMib: number, hosts: LibvirtHosts | undefined): Promise<void> => {
    const cases = plan.cases.filter((each) => each.memoryMib === memoryMib);
    const [first] = cases;
    if (first === undefined) return;
    const { guests, of } = await Guests.make(plan, ground, first, hosts);
    try {
      for (const under of cases) for (const way of turns(plan)) await one(guests, way, under, "usual");
      // where the guest is written to while it moves, if that is asked for at all
      const hardest = cases.at(-1) ?? first;
      if (memoryMib === sizesOf(plan.cases)[0])
        for (let round = 0; round < plan.frozen; round++) for (const way of pair) await one(guests, way, hardest, "frozen");
    } finally {
      await guests.remove();
      await ground.world.delete([of.metadata.name]);
    }
  };

  const libvirt = plan.ways.includes("libvirt") ? { nodes: MOVERS, pool: POOL, tls: plan.tls } : undefined;
  await withLibvirt(libvirt, async (hosts) => {
    for (const memoryMib of sizesOf(plan.cases)) await ofSize(memoryMib, hosts);
  });

  const [under] = plan.cases;
  if (under === undefined) return;
  const fresh = async (ways: readonly Way[], use: (guests: Guests) => Promise<void>): Promise<void> => {
    const { guests, of } = await Guests.make({ ...plan, ways }, ground, under, undefined);
    try {
      await use(guests);
    } finally {
      await guests.remove();
      await ground.world.delete([of.metadata.name]);
    }
  };
  for (let round = 0; round < plan.first; round++) {
    note(`a fresh guest, ${round + 1} of ${plan.first}`);
    await fresh(pair, async (guests) => {
      for (const way of round % 2 === 0 ? pair : pair.toReversed()) await one(guests, way, under, "first");
    });
  }
  if (plan.steady === 0 || !plan.ways.includes("drover")) return;
  await fresh(["drover"], async (guests) => {
    for (let round = 0; round < plan.steady; round++) await one(guests, "drover", under, "steady");
  });
};
