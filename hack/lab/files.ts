/** Files made whole or not at all, and hashes that say whether what they were made from has changed. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, readdir, readFile, rename, rm, stat, utimes } from "node:fs/promises";
import { dirname, join, relative } from "node:path";

/** Whether a file or directory is there. */
export const exists = async (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

/** Writes a file so that whoever reads it sees the old or the new one, whole. */
export const writeWhole = async (path: string, content: string | Buffer, mode = 0o644): Promise<void> => {
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.new.${process.pid}`;
  const file = await open(temporary, "w", mode);
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
};

/**
 * The file at `path`, made by `make` at another name and renamed if it is not there yet. Marks a file found as used now.
 * A half-made one never gets the name; its remains are removed.
 */
export const madeOnce = async (path: string, make: (temporary: string) => Promise<void>): Promise<string> => {
  if (await exists(path)) {
    await utimes(path, new Date(), new Date());
    return path;
  }
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.new.${process.pid}`;
  try {
    await make(temporary);
    await rename(temporary, path);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  return path;
};

/** sha256 of a file's content, read as a stream. */
export const sha256Of = async (path: string): Promise<string> => {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest("hex");
};

const filesBelow = async (path: string): Promise<string[]> => {
  const entries = await readdir(path, { withFileTypes: true, recursive: true });
  return entries.filter((one) => one.isFile()).map((one) => join(one.parentPath, one.name));
};

/** Hash of texts and of the files below paths (missing ones count as such); files whose name matches `leaveOut` do not count. */
export const hashOf = async (root: string, paths: string[], texts: string[] = [], leaveOut = /\.test\.ts$/): Promise<string> => {
  const hash = createHash("sha256");
  for (const text of texts) hash.update(`${text.length}:${text}`);
  for (const path of paths) {
    const full = join(root, path);
    const info = await stat(full).catch(() => undefined);
    const files = info === undefined ? [] : info.isDirectory() ? (await filesBelow(full)).sort() : [full];
    for (const file of files.filter((one) => !leaveOut.test(one))) {
      const content = await readFile(file);
      hash.update(`${relative(root, file)}:${content.length}:`).update(content);
    }
  }
  return hash.digest("hex").slice(0, 16);
};

/** Removes all but the newest `keep` files of a directory whose name begins with a prefix. */
export const keepNewest = async (directory: string, prefix: string, keep: number): Promise<void> => {
  const names = (await readdir(directory).catch(() => [])).filter((name) => name.startsWith(prefix));
  const dated = await Promise.all(names.map(async (name) => ({ name, used: (await stat(join(directory, name))).mtimeMs })));
  const old = dated.sort((a, b) => b.used - a.used).slice(keep);
  for (const { name } of old) await rm(join(directory, name), { recursive: true, force: true });
};

/** Removes what processes that are gone left half-made below a directory: names that end in `.new.<pid>` or `context.<pid>`. */
export const sweep = async (directory: string, alive: (pid: number) => Promise<boolean>): Promise<void> => {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
  const folders = entries.filter((one) => one.isDirectory() && !/\.\d+$/.test(one.name)).map((one) => join(directory, one.name));
  const inside = await Promise.all(
    folders.map(async (folder) => (await readdir(folder).catch(() => [])).map((name) => join(folder, name))),
  );
  for (const path of [...entries.map((one) => join(directory, one.name)), ...inside.flat()]) {
    const pid = /(?:\.new|context)\.(\d+)(?:\.[a-z]+)?$/.exec(path)?.[1];
    if (pid !== undefined && !(await alive(Number(pid)))) await rm(path, { recursive: true, force: true });
  }
};
