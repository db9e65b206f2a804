/**
 * The switchover of a Migration, step by step: `node hack/bench-migration/timeline.ts NAMESPACE NAME` asks the lab;
 * without arguments it tells the medians of the moves in build/bench-migration-moves.json.
 */
import { readFile } from "node:fs/promises";
import path from "node:path";
import type { Migration } from "../../crds/migration.ts";
import { get } from "../kit/cluster.ts";
import type { Sample } from "./measure.ts";
import { switchover } from "./report.ts";
import { timelineTable } from "./text.ts";

const moves = path.resolve(import.meta.dirname, "../../build/bench-migration-moves.json");

const linesOf = async ([namespace, name]: string[]): Promise<Pick<Sample, "timeline">[]> => {
  if (namespace === undefined) return JSON.parse(await readFile(moves, "utf8")) as Sample[];
  if (name === undefined) throw new Error("usage: timeline.ts [NAMESPACE MIGRATION]");
  const { status } = await get<Migration>(`dmig/${name}`, namespace);
  const timeline = status?.source?.timeline;
  if (timeline === undefined)
    throw new Error(`Migration ${namespace}/${name} has no timeline; its phase is ${status?.phase ?? "unknown"}`);
  return [{ timeline }];
};

process.stdout.write(`${timelineTable(switchover(await linesOf(process.argv.slice(2))))}\n`);
