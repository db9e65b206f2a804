/** `npm run check`: types, lint, format, unused code, generated files and unit tests, side by side; prints what failed, then a summary. */
import { execa } from "execa";

interface Check {
  name: string;
  command: string;
  args: string[];
}

const checks: Check[] = [
  { name: "types", command: "tsc", args: ["--noEmit"] },
  { name: "lint", command: "oxlint", args: ["--type-aware", "--deny-warnings"] },
  { name: "format", command: "biome", args: ["format"] },
  { name: "unused code", command: "knip", args: ["--no-progress"] },
  { name: "generated files", command: "node", args: ["crds/generate.ts", "--check"] },
  { name: "unit tests", command: "vitest", args: ["run", "--project", "unit"] },
];

const root = new URL("..", import.meta.url).pathname;

/** Counts that vitest printed, or one for a check that is a single yes or no. */
const count = (check: Check, output: string, failed: boolean): { passed: number; failed: number } => {
  if (check.name !== "unit tests") return { passed: failed ? 0 : 1, failed: failed ? 1 : 0 };
  const line = /Tests\s+(?:(\d+) failed \| )?(?:(\d+) passed)?/.exec(output);
  const passed = Number(line?.[2] ?? 0);
  return { passed, failed: Math.max(Number(line?.[1] ?? 0), failed || passed === 0 ? 1 : 0) };
};

const run = async (check: Check) => {
  const start = performance.now();
  const result = await execa(check.command, check.args, {
    cwd: root,
    preferLocal: true,
    localDir: root,
    all: true,
    reject: false,
    timeout: 300_000,
    env: { NO_COLOR: "1", FORCE_COLOR: "0" },
  });
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  process.stdout.write(`${result.failed ? "FAIL" : "ok  "} ${check.name} (${seconds} s)\n`);
  if (result.failed) process.stdout.write(`${result.all ?? result.shortMessage}\n`);
  return count(check, result.all ?? "", result.failed);
};

const counts = await Promise.all(checks.map(run));
const total = counts.reduce((sum, one) => ({ passed: sum.passed + one.passed, failed: sum.failed + one.failed }));
process.stdout.write(`${total.passed} passed, ${total.failed} failed\n`);
process.exitCode = total.failed === 0 ? 0 : 1;
