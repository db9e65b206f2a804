/** Tells when something happens to a pool that nobody of us did: a mount that comes or goes, a backing file that is deleted. */
import { watch as watchDirectory, type FSWatcher } from "node:fs";
import { mkdir } from "node:fs/promises";
import { execa } from "execa";
import { backoffMs, sleep, type Clock, type Logger } from "../../kube/index.ts";
import { errorText } from "../errors.ts";
import { nodePid, type NodePaths } from "../node.ts";

export interface PoolWatchOptions {
  paths: NodePaths;
  clock: Clock;
  log: Logger;
  onChange: (pool: string) => void;
}

/** The pool that a mount point belongs to; undefined for all others. */
export function poolOfMount(paths: NodePaths, mountPoint: string): string | undefined {
  const prefix = `${paths.pools}/`;
  if (!mountPoint.startsWith(prefix)) return undefined;
  const name = mountPoint.slice(prefix.length);
  return name === "" || name.includes("/") ? undefined : name;
}

/** Watches until the signal aborts. Never throws: what it misses, the next look at the pools finds. */
export async function watchPools(options: PoolWatchOptions, signal: AbortSignal): Promise<void> {
  const files = await watchFiles(options);
  try {
    await watchMounts(options, signal);
  } finally {
    files?.close();
  }
}

async function watchFiles({ paths, log, onChange }: PoolWatchOptions): Promise<FSWatcher | undefined> {
  try {
    await mkdir(paths.loops, { recursive: true, mode: 0o700 });
    const watcher = watchDirectory(paths.loops, (event, name) => {
      if (event === "rename" && name?.endsWith(".img")) onChange(name.slice(0, -".img".length));
    });
    watcher.on("error", (error) => log.warn({ error: errorText(error) }, "no longer watching the files of pools"));
    return watcher;
  } catch (error) {
    log.warn({ error: errorText(error) }, "cannot watch the files of pools");
    return undefined;
  }
}

/** findmnt sleeps in poll(2) on the node's mount table and prints what changed. */
async function watchMounts(options: PoolWatchOptions, signal: AbortSignal): Promise<void> {
  const { clock, log, paths, onChange } = options;
  for (let failures = 1; !signal.aborted; failures += 1) {
    try {
      const watching = ["findmnt", "--poll", "--noheadings", "--raw", "--output", "ACTION,TARGET"];
      const child = execa("nsenter", ["-t", String(nodePid()), "-m", "--", ...watching], {
        cancelSignal: signal,
        buffer: false,
        stdin: "ignore",
      });
      for await (const line of child) {
        const pool = poolOfMount(paths, line.split(" ")[1] ?? "");
        if (pool !== undefined) onChange(pool);
        failures = 1;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (failures === 1) log.warn({ error: errorText(error) }, "no longer watching mounts; trying again");
    }
    await sleep(clock, backoffMs(failures, { baseMs: 1_000, capMs: 300_000 }), signal);
  }
}
