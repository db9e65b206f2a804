/**
 * `make chaos`: everything that can break in a move, broken in every phase of it. PHASE= and FAULT= run a part (a piece of the
 * name is enough; several with | between them). Results go to build/chaos.json as they come: a run that was broken off goes on where
 * it was, and cases that were not good are tried again. AGAIN=1 begins anew; AGAIN=old repeats what did not run on the present
 * commit, the oldest first. At its end the table goes to docs/chaos.md. Exit status 0 only if every case was good.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { execa } from "execa";
import { cases, type Case } from "./chaos/cases.ts";
import { makeWorld, removeWorld } from "./chaos/world.ts";
import { tables, type Outcome } from "./chaos/verdict.ts";
import { labCommand } from "./kit/lab-command.ts";

const root = path.resolve(import.meta.dirname, "..");
const results = path.join(root, "build/chaos.json");
const wanted = (name: string, piece: string | undefined): boolean =>
  piece === undefined || piece.split("|").some((one) => name.toLowerCase().includes(one.toLowerCase()));
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

const git = async (...args: string[]): Promise<string> => (await execa("git", args, { cwd: root })).stdout.trim();

/** What runs: the commit, with a + where tracked code is not as it says. */
const commitNow = async (): Promise<string> => {
  const changed = await git(
    "status",
    "--porcelain",
    "--untracked-files=no",
    "--",
    "crds",
    "kube",
    "ovsdb",
    "operator",
    "node-agent",
  );
  return `${await git("rev-parse", "--short", "HEAD")}${changed === "" ? "" : "+"}`;
};

const publish = async (outcomes: readonly Outcome[]): Promise<void> => {
  const page = path.join(root, "docs/chaos.md");
  const mark = "<!-- the rest is written by make chaos -->";
  const [head = ""] = (await readFile(page, "utf8")).split(mark);
  const good = outcomes.filter(({ ok }) => ok).length;
  const date = new Date().toISOString().slice(0, 10);
  const inOrder = cases.flatMap((one) => outcomes.filter((outcome) => isOf(outcome, one)));
  const text = `Run ${date}: ${good} of ${outcomes.length} cases good.\n\n${tables(inOrder)}`;
  await writeFile(page, `${head}${mark}\n\n${text}\n`);
};

const isOf = (outcome: Outcome, { phase, fault }: Case): boolean => outcome.phase === phase && outcome.fault === fault;

const notTried = ({ phase, fault }: Case, error: unknown): Outcome => ({
  phase,
  fault,
  outcome: "not tried",
  recordsLost: 0,
  maxRunningCopies: 0,
  leftovers: [],
  ok: false,
  why: error instanceof Error ? error.message : String(error),
  seconds: 0,
});

let outcomes = await known();
const commit = await commitNow();
const isDone = (one: Case): boolean =>
  outcomes.some((outcome) => isOf(outcome, one) && outcome.ok && (AGAIN !== "old" || outcome.commit === commit));
const age = (one: Case): number => {
  const commits = [...new Set(outcomes.map((outcome) => outcome.commit))];
  return commits.indexOf(outcomes.find((outcome) => isOf(outcome, one))?.commit);
};
const todo = cases.filter((one) => wanted(one.phase, PHASE) && wanted(one.fault, FAULT) && !isDone(one));
let good = true;
try {
  await labCommand("up");
  let world = await makeWorld();
  for (const one of AGAIN === "old" ? todo.toSorted((a, b) => age(a) - age(b)) : todo) {
    const seen = await one.run(world).catch((error: unknown) => notTried(one, error));
    const outcome: Outcome = { ...seen, commit };
    outcomes = [...outcomes.filter((other) => !isOf(other, one)), outcome];
    await keep(outcomes);
    process.stdout.write(
      `${outcome.ok ? "good" : "BAD "} ${one.phase} / ${one.fault}: ${outcome.outcome} ${outcome.why ?? ""} (${outcome.seconds} s)\n`,
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
