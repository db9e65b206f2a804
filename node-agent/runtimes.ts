/** Versions of the runtime that nothing needs any more are deleted. */
import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import type { InstanceDriver } from "./instance/driver.ts";

const VERSION = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/**
 * Deletes runtimes below `directory` except the one that its file `current` names, those in `keep` and those that a note names.
 * Gives what was deleted. What is not a version's name (a copy under way) is left alone.
 */
export async function removeUnusedRuntimes(
  directory: string,
  keep: ReadonlySet<string>,
  driver: Pick<InstanceDriver, "list" | "observe">,
): Promise<string[]> {
  const used = new Set(keep);
  const current = (await readFile(join(directory, "current"), "utf8").catch(() => "")).trim();
  // Without that file nobody knows what an agent that is just starting will want.
  if (current === "") return [];
  used.add(current);
  for (const uid of await driver.list()) {
    const version = (await driver.observe(uid)).note?.run?.runtimeVersion;
    if (version !== undefined) used.add(version);
  }
  const entries = await readdir(directory, { withFileTypes: true });
  const unused = entries.filter((entry) => entry.isDirectory() && VERSION.test(entry.name) && !used.has(entry.name));
  for (const { name } of unused) await rm(join(directory, name), { recursive: true, force: true });
  return unused.map(({ name }) => name);
}
