/**
 * Runs in a node: `sample-memory.ts DIRECTORY` reads a cgroup's account of its memory every few milliseconds until its standard input
 * ends, then prints {before, peak, after} in bytes, page cache left out: the kernel takes that back. Prints `ready` once it has begun.
 */
import { closeSync, existsSync, openSync, readSync } from "node:fs";
import { join } from "node:path";

const EVERY_MS = 5;

const [directory = ""] = process.argv.slice(2);
const v1 = existsSync(join(directory, "memory.usage_in_bytes"));
const usage = openSync(join(directory, v1 ? "memory.usage_in_bytes" : "memory.current"), "r");
const stat = openSync(join(directory, "memory.stat"), "r");
const buffer = Buffer.alloc(16_384);

const read = (file: number): string => buffer.toString("latin1", 0, readSync(file, buffer, 0, buffer.length, 0));

const now = (): number => {
  const used = Number(read(usage));
  const text = `\n${read(stat)}`;
  const field = (name: string): number => Number(new RegExp(`\n${name} (\\d+)\n`).exec(text)?.[1] ?? Number.NaN);
  return used - (v1 ? field("total_cache") - field("total_shmem") : field("file") - field("shmem"));
};

const before = now();
let peak = before;
const timer = setInterval(() => {
  peak = Math.max(peak, now());
}, EVERY_MS);
process.stdout.write("ready\n");
for await (const _ of process.stdin);
clearInterval(timer);
const after = now();
process.stdout.write(`${JSON.stringify({ before, peak: Math.max(peak, after), after })}\n`);
closeSync(usage);
closeSync(stat);
