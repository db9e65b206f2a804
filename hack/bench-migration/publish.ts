/** Puts the report where people and programs look for it. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import path from "node:path";
import type { Sample } from "./measure.ts";
import { picture } from "./picture.ts";
import { reportOf, verdictOf } from "./report.ts";
import { document, figures, figureTable } from "./text.ts";

const root = path.resolve(import.meta.dirname, "../..");
const DOCUMENT = path.join(root, "docs/bench-migration.md");
const PICTURE = path.join(root, "docs/bench-migration.svg");
const MARK = "<!-- measured: the rest is written by make bench-migration -->";

/** build/bench-migration.json, docs/bench-migration.md after its mark, its picture, and a table to standard output. */
export const publish = async (samples: readonly Sample[]): Promise<void> => {
  const report = reportOf(samples);
  await mkdir(path.join(root, "build"), { recursive: true });
  await writeFile(path.join(root, "build/bench-migration.json"), `${JSON.stringify(figures(report), undefined, 2)}\n`);
  await writeFile(PICTURE, picture(samples));
  const [head = ""] = (await readFile(DOCUMENT, "utf8")).split(MARK);
  const date = new Date().toISOString().slice(0, 10);
  const machine = `Measured ${date} on a lab of three nodes on one machine with ${availableParallelism()} cores, without KVM (TCG), userspace datapath; ${samples.length} moves.`;
  await writeFile(DOCUMENT, `${head}${MARK}\n\n${machine}\n\n${document(report, samples)}\n`);
  process.stdout.write(`\n${figureTable(report)}\n`);
  const missed = Object.entries(report).flatMap(([name, row]) => (verdictOf(row) === "missed" ? [name] : []));
  process.stdout.write(missed.length === 0 ? "all goals are met\n" : `goals missed: ${missed.join(", ")}\n`);
};
