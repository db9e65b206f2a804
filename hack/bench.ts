/**
 * `make bench`: what Drover costs, measured on the lab. Figures go to build/bench.json, a table to standard output and
 * docs/bench.md. Its objects go when it ends; KEEP=1 leaves the lab. Exit status 1 when it could not measure, not when a goal is missed.
 */
import { writeMeasured } from "./bench/document.ts";
import { figure, missed, table, type Bench } from "./bench/figures.ts";
import { measureMemory } from "./bench/memory.ts";
import { emptyNodeMb } from "./bench/processes.ts";
import { measureScale } from "./bench/scale.ts";
import { measureSilences } from "./bench/silence.ts";
import { measureStarts } from "./bench/starts.ts";
import { isReady, makeWorld, NAMESPACE, NETWORK, OTHER_NODE, removeWorld, type World } from "./bench/world.ts";
import { measureWrites } from "./bench/writes.ts";
import { observer } from "./kit/guest.ts";
import { labCommand } from "./kit/lab-command.ts";
import { upgradeDrover } from "./kit/upgrade.ts";

const ROUNDS = { starts: 5, silences: 3 };
const RUNNING = 11;
const COUNTS = [100, 300] as const;
const EATER_MIB = 512;

const begun = performance.now();
const note = (text: string, details?: unknown): void => {
  const seconds = ((performance.now() - begun) / 1000).toFixed(0).padStart(4);
  process.stdout.write(`[${seconds} s] ${text}${details === undefined ? "" : ` ${JSON.stringify(details)}`}\n`);
};

/** Guests whose network and memory are measured are alone: others' translation would be in the figures. */
const onGuest = async (world: World) => {
  await world.create("eater", { memory: `${EATER_MIB}Mi` });
  const { now } = await world.until("eater", isReady);
  const probe = await observer({ node: OTHER_NODE, namespace: NAMESPACE, network: NETWORK, ipv4: "10.77.255.250/16" });
  try {
    const silences = await measureSilences(now, probe, ROUNDS.silences);
    note("switch replaced", silences);
    const memory = await measureMemory(now, EATER_MIB, probe);
    note("memory beside RAM", memory);
    return { silences, memory };
  } finally {
    await probe.remove();
    await world.delete(["eater"]);
  }
};

const measure = async (world: World): Promise<Bench> => {
  const starts = await measureStarts(world, ROUNDS.starts);
  note("starts", starts);
  const { silences, memory } = await onGuest(world);
  const names = Array.from({ length: RUNNING }, (_, index) => `run${index}`);
  const writes = await measureWrites(world, names);
  note("writes", writes);
  const scale = await measureScale(world, RUNNING, COUNTS);
  note("scale", scale);
  const empty = await emptyNodeMb();
  const [few, many] = COUNTS;
  const extrapolated = `more memory per 1,000 Instances, extrapolated from ${few} and ${many}`;
  const idle = `over 60 s with ${few} Instances, ${RUNNING} of them running`;
  return {
    createToRunningOverheadMs: {
      figure: figure(starts.overheadMs, "ms", starts.bareMs),
      what: `from apply until a watch shows the guest Running, less what QEMU alone needs; medians of ${ROUNDS.starts}, in turn; image on the node`,
      baselineIs: "QEMU alone, same machine",
      goal: 500,
    },
    apiWritesPerInstance: {
      figure: figure(writes.perInstance, "writes", writes.perPod),
      what: `Drover's own identities, until Running; mean of ${RUNNING - 1} made at once; without Leases`,
      baselineIs: "a bare pod, all identities but its maker's",
      goal: 8,
    },
    apiWritesPerInstanceReady: {
      figure: figure(writes.perInstanceReady, "writes", writes.perPod),
      what: "the same until Ready",
      baselineIs: "a bare pod",
    },
    vmOverheadMb: {
      figure: figure(memory.overheadMb, "MiB", memory.reservedMb),
      what: `charged to the guest's cgroup beside its RAM, page cache left out; ${EATER_MIB} MiB guest that has touched ${(100 * memory.touched).toFixed(0)} % of it`,
      baselineIs: "what the claim reserves",
    },
    agentRssMb: {
      figure: figure(scale.agentMb, "MiB", empty),
      what: `the largest agent, with ${RUNNING} guests running on its node`,
      baselineIs: "an empty Node.js",
      goal: 110,
    },
    operatorRssMb: {
      figure: figure(scale.operatorMb, "MiB", empty),
      what: `the leader, with ${few} Instances`,
      baselineIs: "an empty Node.js",
      goal: 140,
    },
    operatorRssPer1000Mb: { figure: figure(scale.operatorSlopeMb, "MiB"), what: extrapolated, baselineIs: "" },
    agentRssPer1000Mb: { figure: figure(scale.agentSlopeMb, "MiB"), what: extrapolated, baselineIs: "" },
    agentIdleCpu: { figure: figure(scale.agentCpu, "%"), what: `of a core, the busiest agent, ${idle}`, baselineIs: "", goal: 1 },
    operatorIdleCpu: { figure: figure(scale.operatorCpu, "%"), what: `of a core, the leader, ${idle}`, baselineIs: "", goal: 1 },
    switchLauncherIdleCpu: {
      figure: figure(scale.launcherCpu, "%"),
      what: `of a core, the busiest, ${idle}`,
      baselineIs: "",
      goal: 1,
    },
    ovsRestartSilence: {
      figure: figure(silences.killedMs, "ms", silences.quietMs),
      what: `longest silence of a guest, ovs-vswitchd of its node killed; median of ${ROUNDS.silences}; packets every 10 ms`,
      baselineIs: "nothing happens",
    },
    ovsUpgradeSilence: {
      figure: figure(silences.upgradedMs, "ms", silences.quietMs),
      what: "the same, the switch upgraded by its launcher; mean of 2",
      baselineIs: "nothing happens",
    },
  };
};

const publish = async (bench: Bench): Promise<void> => {
  const figures = Object.fromEntries(Object.entries(bench).map(([name, { figure: one }]) => [name, one]));
  await writeMeasured("bench", figures, table(bench));
  process.stdout.write(`\n${table(bench)}\n`);
  const names = missed(bench);
  note(names.length === 0 ? "all goals are met" : `goals missed: ${names.join(", ")}`);
};

let good = false;
try {
  await labCommand("up");
  // Eleven guests run on one node in the end: at the chart's four virtual CPUs to a core that takes three cores.
  await upgradeDrover({ "operator.cpuOvercommit": 16 });
  await removeWorld();
  const world = await makeWorld();
  try {
    await publish(await measure(world));
    good = true;
  } finally {
    await world.close();
    await removeWorld();
  }
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
} finally {
  if (process.env["KEEP"] !== "1") await labCommand("down");
}
process.exitCode = good ? 0 : 1;
