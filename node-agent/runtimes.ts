/** Versions of the runtime on the node: which there are, what they can run, and the end of those that nothing needs any more. */
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import type { Logger } from "../kube/index.ts";
import { errorText } from "./errors.ts";
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
    const run = (await driver.observe(uid)).note?.run;
    for (const one of [run, run?.next, run?.previous]) if (one !== undefined) used.add(one.runtimeVersion);
  }
  const entries = await readdir(directory, { withFileTypes: true });
  const unused = entries.filter((entry) => entry.isDirectory() && VERSION.test(entry.name) && !used.has(entry.name));
  for (const { name } of unused) await rm(join(directory, name), { recursive: true, force: true });
  return unused.map(({ name }) => name);
}

const factsShape = z.object({ qemuVersion: z.string(), machineTypes: z.array(z.string()) });
const cacheShape = z.record(z.string(), factsShape);
type Facts = z.infer<typeof factsShape>;

/** What is on the node; without facts where its QEMU does not say what it is. */
export interface Runtime extends Partial<Facts> {
  version: string;
}

export interface RuntimesOptions {
  directory: string;
  /** Where the facts are kept: a version's files never change. */
  cacheFile: string;
  /** Runs its QEMU to find out. */
  ask: (version: string) => Promise<Facts>;
  log: Logger;
}

export class Runtimes {
  readonly #options: RuntimesOptions;
  #facts: Map<string, Facts> | undefined;
  #seen: readonly Runtime[] | undefined;
  /** Versions whose QEMU did not say; asked again only when one of them is wanted. */
  readonly #silent = new Set<string>();
  #tail: Promise<unknown> = Promise.resolve();

  constructor(options: RuntimesOptions) {
    this.#options = options;
  }

  /** As of the last look; undefined before the first. */
  get seen(): readonly Runtime[] | undefined {
    return this.#seen;
  }

  /** What a version can run; undefined: it is not on the node. Throws with what its QEMU said. */
  facts(version: string): Promise<Facts | undefined> {
    return this.#serially(async () => ((await this.#versions()).includes(version) ? this.#factsOf(version) : undefined));
  }

  /** Looks again; one version at a time is asked. True: something has changed. */
  look(): Promise<boolean> {
    return this.#serially(async () => {
      const before = JSON.stringify(this.#seen);
      const seen: Runtime[] = [];
      for (const version of await this.#versions()) {
        const facts = this.#silent.has(version)
          ? undefined
          : await this.#factsOf(version).catch((error: unknown) => {
              this.#silent.add(version);
              this.#options.log.warn({ version, error: errorText(error) }, "a runtime's QEMU does not say what it can run");
            });
        seen.push({ version, ...facts });
      }
      this.#seen = seen;
      return before !== JSON.stringify(seen);
    });
  }

  async #versions(): Promise<string[]> {
    const entries = await readdir(this.#options.directory, { withFileTypes: true }).catch(() => []);
    return entries.filter((entry) => entry.isDirectory() && VERSION.test(entry.name)).map(({ name }) => name);
  }

  async #factsOf(version: string): Promise<Facts> {
    this.#facts ??= await this.#readCache();
    const known = this.#facts.get(version);
    if (known !== undefined) return known;
    const facts = await this.#options.ask(version);
    this.#facts.set(version, facts);
    this.#silent.delete(version);
    await this.#writeCache(this.#facts);
    return facts;
  }

  async #readCache(): Promise<Map<string, Facts>> {
    try {
      return new Map(Object.entries(cacheShape.parse(JSON.parse(await readFile(this.#options.cacheFile, "utf8")))));
    } catch {
      return new Map(); // none, or half of one: it is found out anew
    }
  }

  async #writeCache(facts: ReadonlyMap<string, Facts>): Promise<void> {
    const { cacheFile } = this.#options;
    await mkdir(dirname(cacheFile), { recursive: true });
    await writeFile(`${cacheFile}.new`, JSON.stringify(Object.fromEntries(facts)), { mode: 0o600 });
    await rename(`${cacheFile}.new`, cacheFile);
  }

  #serially<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#tail.then(task, task);
    this.#tail = result.catch(() => undefined);
    return result;
  }
}
