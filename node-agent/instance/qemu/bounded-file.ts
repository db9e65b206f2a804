/** Files that QEMU appends to for as long as it runs (console, stderr), kept to a bounded size by the agent. */
import { constants, watch, type FSWatcher } from "node:fs";
import { open, rename, rm, writeFile, type FileHandle } from "node:fs/promises";
import type { Clock, TimerHandle } from "../../../kube/clock.ts";
import { errorCode } from "../../errors.ts";

/** What was cut off last is kept beside the file: together they are at most twice the limit, plus what a second brings. */
const OLDER = ".1";
const LOOK_AT_MOST_EVERY_MS = 1000;

/**
 * Moves the content of a file longer than `limit` bytes to `<file>.1` (its last `limit` bytes) and empties it. QEMU has it
 * open for appending, so it goes on at the start. What is written in between is lost; a crash in between doubles it.
 */
export async function bound(file: string, limit: number): Promise<void> {
  const handle = await openExisting(file, constants.O_RDWR);
  if (!handle) return;
  try {
    const { size } = await handle.stat();
    if (size <= limit) return;
    const temporary = `${file}.new`;
    await rm(temporary, { force: true });
    await writeFile(temporary, await readTail(handle, size, limit), { flag: "wx", mode: 0o600 });
    await rename(temporary, `${file}${OLDER}`);
    await handle.truncate(0);
  } finally {
    await handle.close();
  }
}

/** The last bytes of a bounded file, with what was cut off before if they reach that far. Empty when there is no file. */
export async function tail(file: string, bytes: number): Promise<Buffer> {
  const now = await tailOf(file, bytes);
  if (now.length >= bytes) return now;
  return Buffer.concat([await tailOf(`${file}${OLDER}`, bytes - now.length), now]);
}

/** Bounds a file whenever it has grown, at most once a second, until the returned function is called. */
export function keepBounded(
  file: string,
  limit: number,
  options: { clock: Clock; onError: (error: unknown) => void },
): () => void {
  const { clock, onError } = options;
  let timer: TimerHandle | undefined;
  let watcher: FSWatcher | undefined;
  const look = (): void => {
    timer = undefined;
    bound(file, limit).catch(onError);
  };
  const changed = (): void => {
    timer ??= clock.setTimeout(look, LOOK_AT_MOST_EVERY_MS);
  };
  try {
    watcher = watch(file, { persistent: false }, changed);
    watcher.on("error", onError);
  } catch (error) {
    onError(error);
  }
  changed();
  return () => {
    watcher?.close();
    clock.clearTimeout(timer);
  };
}

async function tailOf(file: string, bytes: number): Promise<Buffer> {
  const handle = await openExisting(file, constants.O_RDONLY);
  if (!handle) return Buffer.alloc(0);
  try {
    return await readTail(handle, (await handle.stat()).size, bytes);
  } finally {
    await handle.close();
  }
}

async function readTail(handle: FileHandle, size: number, bytes: number): Promise<Buffer> {
  const length = Math.min(size, bytes);
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, size - length);
  return buffer.subarray(0, bytesRead);
}

async function openExisting(file: string, flags: number): Promise<FileHandle | undefined> {
  try {
    return await open(file, flags | constants.O_NOFOLLOW);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}
