/** Where people and programs look for what a bench has measured. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import path from "node:path";

const root = path.resolve(import.meta.dirname, "../..");

/**
 * Writes build/NAME.json, and docs/NAME.md from the mark on that tells that the rest is measured.
 * @param counted ends the sentence that says when and on what it was measured
 */
export const writeMeasured = async (name: string, figures: object, text: string, counted = ""): Promise<void> => {
  await mkdir(path.join(root, "build"), { recursive: true });
  await writeFile(path.join(root, `build/${name}.json`), `${JSON.stringify(figures, undefined, 2)}\n`);
  const file = path.join(root, `docs/${name}.md`);
  const mark = `<!-- measured: the rest is written by make ${name} -->`;
  const [head = ""] = (await readFile(file, "utf8")).split(mark);
  const date = new Date().toISOString().slice(0, 10);
  const machine = `Measured ${date} on a lab of three nodes on one machine with ${availableParallelism()} cores, without KVM (TCG), userspace datapath${counted}.`;
  await writeFile(file, `${head}${mark}\n\n${machine}\n\n${text}\n`);
};
