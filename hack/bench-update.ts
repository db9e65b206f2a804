/**
 * `make bench-update`: the QEMU under a running guest replaced by hand and by Drover, in turn, between two real runtimes; and a node full
 * of guests rolled out. Figures go to build/bench-update.json, each update to build/bench-update-updates.json, a table to docs/bench-update.md.
 * CASES, WAYS, UPDATES and FLEET make it shorter; REPORT=1 only writes the report anew, KEEP=1 leaves the lab.
 * Exit status 1 when it could not measure, not when a goal is missed.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { writeMeasured } from "./bench/document.ts";
import { isReady, makeWorld, NAMESPACE, NETWORK, NODE, OTHER_NODE, removeWorld, type World } from "./bench/world.ts";
import { missedIn } from "./bench-migration/compare.ts";
import { endLeftovers } from "./bench-migration/run.ts";
import { figures, figureTable } from "./bench-migration/text.ts";
import { measureFleet, type FleetSeen } from "./bench-update/fleet.ts";
import type { Sample } from "./bench-update/measure.ts";
import { planFrom, type Plan } from "./bench-update/plan.ts";
import { document, reportOf } from "./bench-update/report.ts";
import { runPlan } from "./bench-update/run.ts";
import { observer } from "./kit/guest.ts";
import { labCommand } from "./kit/lab-command.ts";
import { runtimeAfter } from "./kit/update.ts";
import { upgradeDrover } from "./kit/upgrade.ts";
import { thisLab } from "./lab/identity.ts";
import { bringOtherRuntime } from "./lab/other-runtime.ts";
import { makeProgress } from "./lab/progress.ts";

const UPDATES = path.resolve(import.meta.dirname, "../build/bench-update-updates.json");
/** An instance that stays in the runtime that guests go back to, so that the node keeps that. */
const ANCHOR = "anchor";
/** Two of the lab's checkpoints lie in the pause, and no user has them. */
const FOR_THE_BENCH = { "dev.checkpoints": "false" };
/** A node takes more guests than it has processors. Only here: their weight is less then, too. */
const FOR_THE_FLEET = { "operator.cpuOvercommit": 40 };
const OF_THE_LAB = {
  "dev.checkpoints": "true",
  "operator.cpuOvercommit": 4,
  "image.runtime": "",
  "runtimeUpdate.mode": "Manual",
};

interface Seen {
  samples: Sample[];
  fleet?: FleetSeen;
}

const progress = makeProgress();
const seen: Seen = { samples: [] };
const write = (): Promise<void> => writeFile(UPDATES, `${JSON.stringify(seen, undefined, 1)}\n`);

/** By hand and by Drover, to and fro, while the other runtime is the current one. */
const measureUpdates = async (plan: Plan, world: World, other: string): Promise<[older: string, newer: string]> => {
  await world.create(ANCHOR, { memory: "256Mi" });
  const { now } = await world.until(ANCHOR, isReady, 180);
  const older = now.status?.guest?.runtimeVersion ?? "";
  await progress.step("the chart names the other runtime", () => upgradeDrover({ "image.runtime": other, ...FOR_THE_BENCH }));
  const newer = await runtimeAfter([NODE], older);
  progress.note(`from ${older} to ${newer} and back`);
  const probe = await observer({ node: OTHER_NODE, namespace: NAMESPACE, network: NETWORK, ipv4: "10.77.255.252/16" });
  const keep = async (sample: Sample): Promise<void> => {
    seen.samples.push(sample);
    await write();
  };
  try {
    await runPlan(plan, world, probe, [older, newer], { keep, note: (text) => progress.note(text) });
  } finally {
    await probe.remove();
  }
  return [older, newer];
};

const measure = async (plan: Plan): Promise<void> => {
  const other = await bringOtherRuntime(thisLab(), progress);
  const world = await makeWorld();
  try {
    const [older] = await measureUpdates(plan, world, other);
    if (plan.fleet === 0) return;
    // The anchor is older already: with it gone the fleet is all that there is to be rolled out.
    await world.delete([ANCHOR]);
    await upgradeDrover(FOR_THE_FLEET);
    const values = { "image.runtime": "", "runtimeUpdate.mode": "Auto" };
    seen.fleet = await progress.step(`${plan.fleet} guests rolled out`, () => measureFleet(world, plan.fleet, values, older));
    progress.note(`${plan.fleet} guests in ${seen.fleet.seconds.toFixed(0)} s`);
    await write();
  } finally {
    await world.close();
  }
};

const publish = async ({ samples, fleet }: Seen): Promise<void> => {
  const report = reportOf(samples, fleet);
  const updates = samples.filter(({ kind }) => kind === "usual").length;
  await writeMeasured("bench-update", figures(report), document(report, samples), `; ${updates} updates`);
  process.stdout.write(`\n${figureTable(report)}\n`);
  const missed = missedIn(report);
  process.stdout.write(missed.length === 0 ? "all goals are met\n" : `goals missed: ${missed.join(", ")}\n`);
};

const told = new Set<unknown>();
const complain = (error: unknown): void => {
  if (told.has(error)) return;
  told.add(error);
  process.stderr.write(`bench-update: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  for (let cause = error instanceof Error ? error.cause : undefined; cause instanceof Error; cause = cause.cause)
    process.stderr.write(`  because: ${cause.message}\n`);
};

/** The lab as others expect it. */
const restore = async (): Promise<void> => {
  await removeWorld();
  await upgradeDrover(OF_THE_LAB);
};

let good = false;
try {
  if (process.env["REPORT"] === "1") await publish(JSON.parse(await readFile(UPDATES, "utf8")) as Seen);
  else {
    const plan = planFrom(process.env);
    await mkdir(path.dirname(UPDATES), { recursive: true });
    await labCommand("up");
    await endLeftovers();
    await removeWorld();
    try {
      await measure(plan);
      await publish(seen);
    } catch (error) {
      // now: putting the lab in order may fail for the same reason
      complain(error);
      throw error;
    } finally {
      await restore();
    }
  }
  good = true;
} catch (error) {
  complain(error);
} finally {
  if (process.env["KEEP"] !== "1" && process.env["REPORT"] !== "1") await labCommand("down");
}
process.exitCode = good ? 0 : 1;
