/** What a node remembers of a pool that it made: how else would a lost pool differ from one that never was? */
import { readdir, readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import type { NodePaths } from "../node.ts";
import { errorCode } from "../errors.ts";
import { syncDirectory, writeAtomic } from "./files.ts";

const poolNote = z.object({
  driver: z.enum(["btrfs", "dir"]),
  /** UUID of the file system (btrfs), or of the mark in the directory (dir). */
  id: z.string().min(1),
  /** The directory (dir). */
  path: z.string().optional(),
  /** Other nodes have the same directory (dir). */
  shared: z.boolean().optional(),
});

export type PoolNote = z.infer<typeof poolNote>;

const SUFFIX = ".json";
const noteFile = (paths: NodePaths, pool: string): string => join(paths.pools, `${pool}${SUFFIX}`);

/** The note; undefined when there is none. A note that cannot be read is an error, not a pool that never was. */
export async function readNote(paths: NodePaths, pool: string): Promise<PoolNote | undefined> {
  let text: string;
  try {
    text = await readFile(noteFile(paths, pool), "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
  return poolNote.parse(JSON.parse(text));
}

export const writeNote = (paths: NodePaths, pool: string, note: PoolNote): Promise<void> =>
  writeAtomic(noteFile(paths, pool), `${JSON.stringify(note)}\n`);

export async function removeNote(paths: NodePaths, pool: string): Promise<void> {
  const file = noteFile(paths, pool);
  await rm(`${file}.new`, { force: true });
  await rm(file, { force: true });
  await syncDirectory(dirname(file));
}

/** Names of the pools that this node has made and not taken down. */
export async function notedPools(paths: NodePaths): Promise<string[]> {
  try {
    const names = await readdir(paths.pools);
    return names.filter((name) => name.endsWith(SUFFIX)).map((name) => name.slice(0, -SUFFIX.length));
  } catch (error) {
    if (errorCode(error) === "ENOENT") return [];
    throw error;
  }
}
