/** Official releases of programs, taken only with the checksum that is published beside them. */
import { chmod, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { sha256Of } from "./files.ts";
import { LabError, run } from "./run.ts";

export interface Release {
  url: string;
  /** File with its sha256: alone, or in a list. */
  checksum: string;
  /** Path of the program in a tar.gz; left out when the release is the program itself. */
  member?: string;
}

/** Hosts that gave no checksum: asked once, not once per program. */
const silent = new Set<string>();

/** The checksum for a file's name in a checksum file: alone, or in a list of `sum  name`. Pure. */
export const checksumIn = (text: string, name: string): string | undefined => {
  const lines = text
    .trim()
    .split("\n")
    .map((line) => line.trim().split(/\s+\*?/));
  const [only] = lines;
  if (lines.length === 1 && only?.length === 1) return /^[0-9a-f]{64}$/.test(only[0] ?? "") ? only[0] : undefined;
  const line = lines.find((parts) => parts[1] === name);
  return /^[0-9a-f]{64}$/.test(line?.[0] ?? "") ? line?.[0] : undefined;
};

/** Fetches a release; false at once when the network does not have it. Throws only when what came is not what its checksum says. */
export const fetchRelease = async ({ url, checksum, member }: Release, target: string): Promise<boolean> => {
  const { host } = new URL(url);
  if (silent.has(host)) return false;
  const curl = [
    "--fail",
    "--silent",
    "--show-error",
    "--location",
    "--connect-timeout",
    "5",
    "--speed-limit",
    "20000",
    "--speed-time",
    "15",
  ];
  const sums = await run("curl", [...curl, checksum], { deadlineMs: 20_000 }).catch(() => undefined);
  const name = url.split("/").at(-1) ?? "";
  const wanted = sums === undefined ? undefined : checksumIn(sums, name);
  if (wanted === undefined) {
    silent.add(host);
    return false;
  }
  const file = `${target}.download`;
  try {
    await run("curl", [...curl, "--output", file, url], { deadlineMs: 600_000 });
    const got = await sha256Of(file);
    if (got !== wanted) throw new LabError(`${url} has sha256 ${got}, its checksum file says ${wanted}: not used`);
    if (member === undefined) await rename(file, target);
    else await writeFile(target, await untar(file, member));
    await chmod(target, 0o755);
    return true;
  } catch (error) {
    if (error instanceof LabError && !error.message.includes("sha256")) return false;
    throw error;
  } finally {
    await rm(file, { force: true });
  }
};

const untar = async (file: string, member: string): Promise<Buffer> => {
  const directory = `${file}.d`;
  try {
    await mkdir(directory, { recursive: true });
    await run("tar", ["-xzf", file, "-C", directory, member], { deadlineMs: 60_000 });
    return await readFile(join(directory, member));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
};
