/** What guests that start now run with on this node: found out once per boot and runtime, remembered for the next agent. */
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { UserError } from "./errors.ts";
import type { HostFacts } from "./host/index.ts";
import type { ProbeOptions } from "./instance/qemu/probe.ts";

const factsShape = z.object({
  accelerator: z.enum(["KVM", "TCG"]),
  acceleratorMessage: z.string().optional(),
  qemuVersion: z.string(),
  runtimeVersion: z.string(),
  machineTypes: z.array(z.string()),
  cpuModel: z.string(),
});
const cacheShape = z.object({ bootId: z.string(), mode: z.string(), facts: factsShape });

export interface NodeFactsOptions {
  /** What is asked of the node; facts that were found out for another mode do not count. */
  mode: ProbeOptions["mode"];
  /** Runs a guest to find out; throws UserError when the node has not what the mode asks for. */
  probe: (runtimeVersion: string, mode: ProbeOptions["mode"], signal: AbortSignal) => Promise<Omit<HostFacts, "runtimeVersion">>;
  /** Directory of runtimes; its file `current` names the version for guests that start now. */
  runtimes: string;
  runtimeVersion: string | undefined;
  /** Where the facts are kept until the node is booted again. */
  cacheFile: string;
  bootId: string;
}

/** Throws UserError with what keeps guests from running here. */
export async function nodeFacts(options: NodeFactsOptions, signal: AbortSignal): Promise<HostFacts> {
  const { probe, mode, bootId, cacheFile, runtimes } = options;
  const runtimeVersion = options.runtimeVersion ?? (await currentRuntime(runtimes));
  const cached = await readCache(cacheFile);
  if (cached?.bootId === bootId && cached.mode === mode && cached.facts.runtimeVersion === runtimeVersion) return cached.facts;
  const facts = { ...(await probe(runtimeVersion, mode, signal)), runtimeVersion };
  await mkdir(dirname(cacheFile), { recursive: true });
  await writeFile(`${cacheFile}.new`, JSON.stringify({ bootId, mode, facts }), { mode: 0o600 });
  await rename(`${cacheFile}.new`, cacheFile);
  return facts;
}

async function readCache(file: string): Promise<z.infer<typeof cacheShape> | undefined> {
  try {
    return cacheShape.safeParse(JSON.parse(await readFile(file, "utf8"))).data;
  } catch {
    return undefined; // none, or half of one: it is found out anew
  }
}

async function currentRuntime(runtimes: string): Promise<string> {
  const file = join(runtimes, "current");
  const version = (await readFile(file, "utf8").catch(() => "")).trim();
  if (/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(version)) return version;
  throw new UserError("RuntimeMissing", `${file} names no runtime; the init container of the agent's pod writes it`);
}
