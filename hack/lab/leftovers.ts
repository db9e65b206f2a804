/** What of a lab is on the machine: found by place, so that it is found after a crash too. */
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { z } from "zod";
import { run } from "./run.ts";

const unescape = (text: string): string =>
  text.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));

/** Mount points at or below a directory, deepest and latest first. Pure; takes the text of mountinfo. */
export const mountsBelow = (mountinfo: string, directory: string): string[] =>
  mountinfo
    .split("\n")
    .map((line) => line.split(" ")[4])
    .filter((path) => path !== undefined)
    .map(unescape)
    .filter((path) => path === directory || path.startsWith(`${directory}/`))
    .reverse();

const loopListSchema = z.object({
  loopdevices: z.array(z.object({ name: z.string(), "back-ino": z.coerce.number(), "back-maj:min": z.string() })),
});

/** A file's device as the kernel's tools write it. Pure. */
export const deviceText = (device: number): string => {
  const all = BigInt(device);
  const major = ((all >> 8n) & 0xfffn) | ((all >> 32n) & ~0xfffn);
  const minor = (all & 0xffn) | ((all >> 12n) & ~0xffn);
  return `${major}:${minor}`;
};

/** Programs that nodes keep; nobody attaches one, and there are thousands. */
const PROGRAMS = /\/runtime$/;

const identitiesBelow = async (directory: string, found: Set<string>): Promise<void> => {
  for (const entry of await readdir(directory, { withFileTypes: true }).catch(() => [])) {
    const path = join(directory, entry.name);
    if (entry.isDirectory() && !PROGRAMS.test(path)) await identitiesBelow(path, found);
    if (!entry.isFile()) continue;
    const info = await stat(path).catch(() => undefined);
    if (info) found.add(`${deviceText(info.dev)}/${info.ino}`);
  }
};

/**
 * Loop devices whose backing file lies, or lay before it was deleted, below a directory. A file that was attached inside a node
 * has another path there, or none any more, so files are known by device and inode too.
 */
export const loopsBelow = async (directory: string, inside: string[]): Promise<string[]> => {
  const text = await run("losetup", ["--list", "--json", "--output", "NAME,BACK-INO,BACK-MAJ:MIN"]);
  if (text.trim() === "") return [];
  const loops = loopListSchema.parse(JSON.parse(text)).loopdevices;
  const identities = new Set<string>();
  for (const one of inside) await identitiesBelow(one, identities);
  const found = await Promise.all(
    loops.map(async (loop) => {
      const file = await readFile(join("/sys/block", basename(loop.name), "loop", "backing_file"), "utf8").catch(() => "");
      const ours = file.startsWith(`${directory}/`) || identities.has(`${loop["back-maj:min"].trim()}/${loop["back-ino"]}`);
      return ours ? loop.name : undefined;
    }),
  );
  return found.filter((one) => one !== undefined);
};
