/** Puts the report where people and programs look for it. */
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { writeMeasured } from "../bench/document.ts";
import { missedIn } from "./compare.ts";
import type { Sample } from "./measure.ts";
import { picture } from "./picture.ts";
import { reportOf } from "./report.ts";
import { document, figures, figureTable } from "./text.ts";

const PICTURE = path.resolve(import.meta.dirname, "../../docs/bench-migration.svg");

/** build/bench-migration.json, docs/bench-migration.md after its mark, its picture, and a table to standard output. */
export const publish = async (samples: readonly Sample[]): Promise<void> => {
  const report = reportOf(samples);
  await writeFile(PICTURE, picture(samples));
  await writeMeasured("bench-migration", figures(report), document(report, samples), `; ${samples.length} moves`);
  process.stdout.write(`\n${figureTable(report)}\n`);
  const missed = missedIn(report);
  process.stdout.write(missed.length === 0 ? "all goals are met\n" : `goals missed: ${missed.join(", ")}\n`);
};
