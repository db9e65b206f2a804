/** Who uses a directory that nodes share: one file for each of them lies in it. */
import { mkdir, readdir, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { errorCode } from "../../errors.ts";
import { exists, writeAtomic } from "../files.ts";

const NODES = ".drover-nodes";

const fileOf = (place: string, node: string): string => join(place, NODES, node);

export const hasJoined = (place: string, node: string): Promise<boolean> => exists(fileOf(place, node));

/** From then on no other node takes the directory's content away. */
export async function joinDirectory(place: string, node: string): Promise<void> {
  await mkdir(join(place, NODES), { recursive: true, mode: 0o700 });
  await writeAtomic(fileOf(place, node), "");
}

/** Takes this node's name out of it; true: it was the last, and may clear the directory away. May be repeated. */
export async function leaveDirectory(place: string, node: string): Promise<boolean> {
  for (const file of [fileOf(place, node), `${fileOf(place, node)}.new`]) await rm(file, { force: true });
  try {
    await rmdir(join(place, NODES));
    return true;
  } catch (error) {
    // Gone: this was the last one before, and was ended before it had cleared everything away.
    if (errorCode(error) === "ENOENT") return true;
    if (errorCode(error) === "ENOTEMPTY" || errorCode(error) === "EEXIST") return false;
    throw error;
  }
}

/** Whether another node uses it too. */
export async function othersUse(place: string, node: string): Promise<boolean> {
  try {
    return (await readdir(join(place, NODES))).some((name) => name !== node && !name.endsWith(".new"));
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
}
