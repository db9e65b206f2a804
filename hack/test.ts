/**
 * `make test`: everything that must pass, on real parts. Stages run in order; a stage that breaks counts as a failure and
 * the next ones still run, so that one run tells all. The lab is taken down at the end whatever happened.
 * STAGES=check,integration,e2e picks some; KEEP=1 leaves the lab up. The last line is `N passed, N failed`.
 */
import { mkdir, readFile, rm } from "node:fs/promises";
import path from "node:path";
import { stripVTControlCharacters } from "node:util";
import { execa } from "execa";

interface Count {
  passed: number;
  failed: number;
}

const root = path.resolve(import.meta.dirname, "..");
const build = path.join(root, "build");
const started = performance.now();

const say = (text: string): void => {
  const minutes = (performance.now() - started) / 60_000;
  process.stdout.write(`[${minutes.toFixed(1)} min] ${text}\n`);
};

/** Runs a command with its output shown as it comes; true when it succeeded. */
const show = async (command: string, args: string[], minutes: number, env: Record<string, string> = {}): Promise<boolean> => {
  const result = await execa(command, args, {
    cwd: root,
    env,
    preferLocal: true,
    localDir: root,
    stdin: "ignore",
    stdout: "inherit",
    stderr: "inherit",
    reject: false,
    timeout: minutes * 60_000,
    forceKillAfterDelay: 30_000,
  });
  if (result.failed) {
    say(`failed: ${result.shortMessage}`);
    if (command !== "vitest") failures.push(result.shortMessage ?? command);
  }
  return !result.failed;
};

interface VitestReport {
  numPassedTests: number;
  numFailedTests: number;
  testResults: {
    name: string;
    message?: string;
    assertionResults: { fullName: string; status: string; failureMessages?: string[] | null }[];
  }[];
}

/** What failed, and how, in a line each: told once more at the end, for of a long log often only the end is kept. */
const failures: string[] = [];

const firstLine = (text = ""): string => stripVTControlCharacters(text).split("\n", 1)[0] ?? "";

const noteFailed = (project: string, report: VitestReport): void => {
  for (const file of report.testResults) {
    const failed = file.assertionResults.filter(({ status }) => status === "failed");
    for (const one of failed) failures.push(`${project}: ${one.fullName}: ${firstLine(one.failureMessages?.[0])}`);
    if (failed.length === 0 && file.message)
      failures.push(`${project}: ${path.relative(root, file.name)}: ${firstLine(file.message)}`);
  }
};

/** A test that did not run is named: nobody should take it for one that passed. */
const nameSkipped = (project: string, report: VitestReport): void => {
  const all = report.testResults.flatMap((file) => file.assertionResults);
  for (const one of all) if (one.status === "pending" || one.status === "skipped") say(`${project}: skipped: ${one.fullName}`);
};

/** Runs a vitest project; a project in which no test ran is a failure. */
const vitest = async (project: string, minutes: number, env: Record<string, string> = {}): Promise<Count> => {
  const report = path.join(build, `${project}.json`);
  await rm(report, { force: true });
  const good = await show(
    "vitest",
    ["run", "--project", project, "--reporter=verbose", "--reporter=json", `--outputFile.json=${report}`],
    minutes,
    env,
  );
  const parsed = await readFile(report, "utf8").then(
    (text) => JSON.parse(text) as VitestReport,
    () => undefined,
  );
  if (parsed) {
    nameSkipped(project, parsed);
    noteFailed(project, parsed);
  }
  if (!parsed || parsed.numPassedTests === 0) return { passed: 0, failed: Math.max(1, parsed?.numFailedTests ?? 1) };
  // A file that fails to load fails no test: the exit code still says so.
  return { passed: parsed.numPassedTests, failed: good ? 0 : Math.max(1, parsed.numFailedTests) };
};

const single = async (command: string, args: string[], minutes: number): Promise<Count> =>
  (await show(command, args, minutes)) ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 };

const checkStage = async (): Promise<Count> => {
  const result = await execa("node", ["hack/check.ts"], {
    cwd: root,
    preferLocal: true,
    localDir: root,
    all: true,
    reject: false,
    timeout: 600_000,
  });
  process.stdout.write(`${result.all}\n`);
  for (const [, what] of result.all.matchAll(/^ ?FAIL +(.*)$/gm)) failures.push(`check: ${what ?? ""}`);
  const line = /(\d+) passed, (\d+) failed\s*$/.exec(result.all);
  return line ? { passed: Number(line[1]), failed: Number(line[2]) } : { passed: 0, failed: 1 };
};

/** The lab with Drover in it, the tests on it, and nothing left behind. */
const e2eStage = async (): Promise<Count> => {
  const up = await single("node", ["hack/lab/main.ts", "up"], 45);
  const tests = up.failed === 0 ? await vitest("e2e", 40) : { passed: 0, failed: 0 };
  const down = process.env["KEEP"] === "1" ? { passed: 0, failed: 0 } : await single("node", ["hack/lab/main.ts", "down"], 5);
  return sum([up, tests, down]);
};

const sum = (counts: Count[]): Count =>
  counts.reduce((total, one) => ({ passed: total.passed + one.passed, failed: total.failed + one.failed }), {
    passed: 0,
    failed: 0,
  });

const stages: Record<string, () => Promise<Count>> = {
  check: checkStage,
  // All that they need was installed: what cannot run here has failed.
  integration: () => vitest("integration", 30, { DROVER_REQUIRE_TOOLS: "1" }),
  e2e: e2eStage,
};

await mkdir(build, { recursive: true });
const wanted = (process.env["STAGES"] ?? Object.keys(stages).join(",")).split(",");
const counts: Count[] = [];
for (const name of wanted) {
  const stage = stages[name];
  if (!stage) throw new Error(`STAGES names ${name}; there are ${Object.keys(stages).join(", ")}`);
  say(`stage ${name}`);
  const count = await stage().catch((error: unknown) => {
    say(`stage ${name} broke: ${String(error)}`);
    return { passed: 0, failed: 1 };
  });
  say(`stage ${name}: ${count.passed} passed, ${count.failed} failed`);
  counts.push(count);
}
const total = sum(counts);
if (failures.length > 0) process.stdout.write(`What failed:\n${failures.map((line) => `  ${line}\n`).join("")}`);
process.stdout.write(`${total.passed} passed, ${total.failed} failed\n`);
process.exitCode = total.failed === 0 && total.passed > 0 ? 0 : 1;
