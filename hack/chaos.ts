/**
 * `make chaos`: everything that can break in a move, broken in every phase of it. PHASE= and FAULT= run a part (a piece of the
 * name is enough). Results go to build/chaos.json as they come: a run that was broken off goes on where it was; AGAIN=1 begins
 * anew. At its end the table goes to docs/chaos.md. Exit status 0 only if every case was good.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { faults } from "./chaos/faults.ts";
import { phases } from "./chaos/phases.ts";
import { makeWorld, removeWorld } from "./chaos/world.ts";
import { runCase } from "./chaos/run.ts";
import { table, type Outcome } from "./chaos/verdict.ts";
import { labCommand } from "./kit/lab-command.ts";

const root = path.resolve(import.meta.dirname, "..");
const results = path.join(root, "build/chaos.json");
const wanted = (name: string, piece: string | undefined): boolean =>
  piece === undefined || name.toLowerCase().includes(piece.toLowerCase());
const { PHASE, FAULT, AGAIN, KEEP } = process.env;

const known = async (): Promise<Outcome[]> =>
  AGAIN === "1"
    ? []
    : readFile(results, "utf8").then(
        (text) => JSON.parse(text) as Outcome[],
        () => [],
      );

const keep = async (outcomes: readonly Outcome[]): Promise<void> => {
  await mkdir(path.dirname(results), { recursive: true });
  await writeFile(results, `${JSON.stringify(outcomes, undefined, 2)}\n`);
};

const publish = async (outcomes: readonly Outcome[]): Promise<void> => {
  const page = path.join(root, "docs/chaos.md");
  const mark = "<!-- the rest is written by make chaos -->";
  const [head = ""] = (await readFile(page, "utf8")).split(mark);
  const good = outcomes.filter(({ ok }) => ok).length;
  const date = new Date().toISOString().slice(0, 10);
  const text = `Run ${date}: ${good} of ${outcomes.length} cases good.\n\n${table(outcomes)}`;
  await writeFile(page, `${head}${mark}\n\n${text}\n`);
};

let outcomes = await known();
const cases = phases
  .flatMap((phase) => faults.map((fault) => ({ phase, fault })))
  .filter(({ phase, fault }) => wanted(phase.name, PHASE) && wanted(fault.name, FAULT));
const isDone = (phase: string, fault: string): boolean =>
  outcomes.some((one) => one.phase === phase && one.fault === fault && one.ok);
let good = true;
try {
  await labCommand("up");
  let world = await makeWorld();
  for (const { phase, fault } of cases) {
    if (isDone(phase.name, fault.name)) continue;
    const outcome = await runCase(phase, fault, world).catch(
      (error: unknown): Outcome => ({
        phase: phase.name,
        fault: fault.name,
        outcome: "not tried",
        recordsLost: 0,
        maxRunningCopies: 0,
        leftovers: [],
        ok: false,
        why: error instanceof Error ? error.message : String(error),
        seconds: 0,
      }),
    );
    outcomes = [...outcomes.filter((one) => one.phase !== phase.name || one.fault !== fault.name), outcome];
    await keep(outcomes);
    process.stdout.write(
      `${outcome.ok ? "good" : "BAD "} ${phase.name} / ${fault.name}: ${outcome.outcome} ${outcome.why ?? ""} (${outcome.seconds} s)\n`,
    );
    // What a bad case left behind must not spoil the next one.
    if (!outcome.ok) {
      good = false;
      await removeWorld(world);
      world = await makeWorld();
    }
  }
  await removeWorld(world);
  await publish(outcomes);
} catch (error) {
  good = false;
  process.stderr.write(`chaos: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
} finally {
  if (KEEP !== "1") await labCommand("down");
}
process.exitCode = good ? 0 : 1;
