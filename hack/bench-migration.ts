/**
 * `make bench-migration`: the same guest moved by hand, by Drover, by libvirt, and as it was before there were live moves.
 * Figures go to build/bench-migration.json, each move to build/bench-migration-moves.json, a table and a picture to docs/.
 * CASES, WAYS, MOVES, OTHER_MOVES, FIRST, FROZEN and STEADY make it shorter; REPORT=1 only writes the report anew, KEEP=1 leaves the lab.
 * Exit status 1 when it could not measure, not when a goal is missed.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { makeWorld, NAMESPACE, NETWORK, OTHER_NODE, removeWorld } from "./bench/world.ts";
import { findAgents } from "./bench-migration/agents.ts";
import { watchMoves } from "./bench-migration/drover.ts";
import { LABEL, type Ground } from "./bench-migration/guests.ts";
import { MOVERS, type Sample } from "./bench-migration/measure.ts";
import { openDatabases } from "./bench-migration/network.ts";
import { makeFreezer } from "./bench-migration/northd.ts";
import { planFrom, type Plan } from "./bench-migration/plan.ts";
import { publish } from "./bench-migration/publish.ts";
import { endLeftovers, runPlan } from "./bench-migration/run.ts";
import { kubectl } from "./kit/cluster.ts";
import { observer } from "./kit/guest.ts";
import { labCommand } from "./kit/lab-command.ts";
import { lab } from "./lab/index.ts";

const MOVES = path.resolve(import.meta.dirname, "../build/bench-migration-moves.json");

/** Moves of Drover's: collecting garbage makes V8 throw away what it has compiled of what runs seldom, and the next move pays for that. */
const MEMORY_EVERY = 3;

const begun = performance.now();
const note = (text: string): void => {
  const seconds = ((performance.now() - begun) / 1000).toFixed(0).padStart(4);
  process.stdout.write(`[${seconds} s] ${text}\n`);
};

const measure = async (plan: Plan): Promise<Sample[]> => {
  const samples: Sample[] = [];
  const keep = async (sample: Sample): Promise<void> => {
    samples.push(sample);
    await writeFile(MOVES, `${JSON.stringify(samples, undefined, 1)}\n`);
  };
  for (const node of MOVERS) await kubectl(["label", "node", node, `${LABEL}=yes`, "--overwrite"]);
  const world = await makeWorld();
  const nodes = lab().nodes.map(({ name }) => name);
  const databases = await openDatabases(nodes, MOVERS);
  const moves = await watchMoves();
  const freezer = await makeFreezer();
  const probe = await observer({ node: OTHER_NODE, namespace: NAMESPACE, network: NETWORK, ipv4: "10.77.255.251/16" });
  let moved = 0;
  const readsMemory = (): boolean => ++moved % MEMORY_EVERY === 0;
  const ground: Ground = { world, probe, databases, moves, tls: plan.tls };
  try {
    await runPlan(plan, ground, { probe, agents: await findAgents(), freezer, readsMemory }, { keep, note });
  } finally {
    await probe.remove();
    await freezer.close();
    await moves.close();
    databases.close();
    await world.close();
  }
  return samples;
};

const told = new Set<unknown>();
const complain = (error: unknown): void => {
  if (told.has(error)) return;
  told.add(error);
  process.stderr.write(`bench-migration: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  for (let cause = error instanceof Error ? error.cause : undefined; cause instanceof Error; cause = cause.cause)
    process.stderr.write(`  because: ${cause.message}\n`);
};

let good = false;
try {
  if (process.env["REPORT"] === "1") await publish(JSON.parse(await readFile(MOVES, "utf8")) as Sample[]);
  else {
    const plan = planFrom(process.env);
    await mkdir(path.dirname(MOVES), { recursive: true });
    await labCommand("up");
    await endLeftovers();
    await removeWorld();
    try {
      await publish(await measure(plan));
    } catch (error) {
      // now: taking the world down may fail for the same reason
      complain(error);
      throw error;
    } finally {
      await removeWorld();
      for (const node of MOVERS) await kubectl(["label", "node", node, `${LABEL}-`]);
    }
  }
  good = true;
} catch (error) {
  complain(error);
} finally {
  if (process.env["KEEP"] !== "1" && process.env["REPORT"] !== "1") await labCommand("down");
}
process.exitCode = good ? 0 : 1;
