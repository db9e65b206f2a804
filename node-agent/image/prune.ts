/** Deletes images to make room. A disk that was cloned from one keeps its blocks: nothing depends on an image any more. */
import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { errorCode } from "../errors.ts";
import { fileSystemRoom } from "../pool/files.ts";
import { here } from "../pool/here.ts";

/** Between `Images.ensure` and the clone of a disk from it an image must stay. */
const JUST_USED_MS = 10 * 60_000;

export interface ImageSeen {
  /** Digits of its checksum. */
  name: string;
  /** When it was used last; that is the file's time of modification, so that no index can go wrong. */
  usedAt: number;
}

/** Images that may be deleted, those longest unused first. Pure. */
export function pruneOrder(images: readonly ImageSeen[], keep: ReadonlySet<string>, now: number): string[] {
  return images
    .filter(({ name, usedAt }) => !keep.has(name) && now - usedAt > JUST_USED_MS)
    .toSorted((a, b) => a.usedAt - b.usedAt)
    .map(({ name }) => name);
}

export interface PruneRequest {
  directory: string;
  /** Stop when so many bytes have become free. */
  bytes: number;
  keep: ReadonlySet<string>;
  now: number;
}

/** Deletes images until there is room, and tells which. */
export async function prune({ directory, bytes, keep, now }: PruneRequest): Promise<string[]> {
  const { freeBytes: before } = await fileSystemRoom(directory);
  const deleted: string[] = [];
  for (const name of pruneOrder(await imagesIn(directory), keep, now)) {
    await rm(join(directory, `${name}.raw`), { force: true });
    deleted.push(name);
    // Freed blocks count as free only after the file system's next commit.
    await here("sync", ["--file-system", directory], { deadlineMs: 120_000 });
    if ((await fileSystemRoom(directory)).freeBytes - before >= bytes) break;
  }
  return deleted;
}

async function imagesIn(directory: string): Promise<ImageSeen[]> {
  const seen: ImageSeen[] = [];
  for (const file of await readdir(directory)) {
    const name = /^([0-9a-f]{64,128})\.raw$/.exec(file)?.[1];
    if (name === undefined) continue;
    try {
      seen.push({ name, usedAt: (await stat(join(directory, file))).mtimeMs });
    } catch (error) {
      if (errorCode(error) !== "ENOENT") throw error;
    }
  }
  return seen;
}
