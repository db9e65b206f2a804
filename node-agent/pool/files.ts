/** Files that are whole or not there at all, whatever ends the process. */
import { constants, renameSync } from "node:fs";
import { copyFile, lstat, mkdir, open, rename, rm, rmdir, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { errorCode, errorText } from "../errors.ts";
import { here } from "./here.ts";

/** Makes what was renamed or removed in a directory survive a power cut. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export async function syncFile(file: string): Promise<void> {
  const handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes a small file by temporary name and rename, readable by root only. */
export async function writeAtomic(file: string, text: string): Promise<void> {
  const temporary = `${file}.new`;
  await writeSynced(temporary, text);
  await rename(temporary, file);
  await syncDirectory(dirname(file));
}

const STAGED = ".staged";

/**
 * Writes all of it under another name; the returned function puts that in the file's place by one rename, which outlives this process but
 * not yet a power cut: after that the file is the old one or the new one.
 */
export async function stageAtomic(file: string, text: string): Promise<() => void> {
  const temporary = `${file}${STAGED}`;
  await writeSynced(temporary, text);
  // at once, not by a thread of the pool, which would first have to be woken
  return () => renameSync(temporary, file);
}

/** Takes away what was staged and never put in its place. */
export const removeStaged = (file: string): Promise<void> => rm(`${file}${STAGED}`, { force: true });

async function writeSynced(file: string, text: string): Promise<void> {
  await rm(file, { force: true });
  const handle = await open(file, "wx", 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * A directory whose files are written in place (no copy-on-write, no data checksums) where the file system knows that
 * difference; appears complete or not at all. An existing one is left as it is.
 */
async function makeDataDirectory(directory: string, half: string, mode: number): Promise<void> {
  const temporary = `${directory}${half}`;
  await rm(temporary, { recursive: true, force: true });
  await mkdir(temporary, { mode });
  try {
    await here("chattr", ["+C", temporary], { deadlineMs: 10_000 });
  } catch (error) {
    // Not every file system has the attribute; those that have not write in place anyway.
    if (!/not supported|Inappropriate ioctl/i.test(errorText(error))) throw error;
  }
  try {
    await rename(temporary, directory);
  } catch (error) {
    if (errorCode(error) !== "ENOTEMPTY" && errorCode(error) !== "EEXIST") throw error;
    await rm(temporary, { recursive: true, force: true });
  }
  await syncDirectory(dirname(directory));
}

/** Mode of a pool's directories: root lists them, and a guest reaches its own volumes by a mount of its own. */
export const POOL_MODE = 0o711;

/** Makes a pool's `volumes` and `images`, where they are missing; `half`: ends the names of what is not ready, and is no other node's. */
export async function makePoolDirectories(place: string, half = ".new"): Promise<void> {
  if (!(await exists(join(place, "volumes")))) await makeDataDirectory(join(place, "volumes"), half, POOL_MODE);
  if (!(await exists(join(place, "images")))) await makeDataDirectory(join(place, "images"), half, 0o700);
}

/**
 * Copies a file's content to a new file: by reflink where the file system can (milliseconds, no space), else sparsely within
 * the deadline. The target must not exist. Throws with cp's words.
 */
export async function cloneFile(
  source: string,
  target: string,
  options: { deadlineMs: number; signal?: AbortSignal | undefined },
): Promise<void> {
  try {
    await copyFile(source, target, constants.COPYFILE_FICLONE_FORCE | constants.COPYFILE_EXCL);
    return;
  } catch (error) {
    const code = errorCode(error) ?? "";
    // EINVAL: one of the two is copy-on-write and the other is not.
    if (!["ENOTSUP", "EOPNOTSUPP", "EXDEV", "EINVAL", "ENOTTY", "ENOSYS"].includes(code)) throw error;
    await rm(target, { force: true });
  }
  await here("cp", ["--reflink=auto", "--sparse=always", "--", source, target], options);
}

/** Size and free bytes of the file system that a path lies on. */
export async function fileSystemRoom(path: string): Promise<{ sizeBytes: number; freeBytes: number; usedBytes: number }> {
  const { blocks, bfree, bavail, bsize } = await statfs(path);
  return { sizeBytes: blocks * bsize, freeBytes: bavail * bsize, usedBytes: (blocks - bfree) * bsize };
}

/** Removes a directory if it is empty; one that is not, or is not there, is left. */
export async function removeEmptyDirectory(path: string): Promise<void> {
  try {
    await rmdir(path);
  } catch (error) {
    if (errorCode(error) !== "ENOENT" && errorCode(error) !== "ENOTEMPTY") throw error;
  }
}

/** Whether there is anything at a path; links are not followed. */
export async function exists(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
}
