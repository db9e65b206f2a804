/** What of a lab is on the machine: found by place, so that it is found after a crash too. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

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

/** Loop devices whose backing file lies, or lay before it was deleted, below a directory. */
export const loopsBelow = async (directory: string): Promise<string[]> => {
  const names = (await readdir("/sys/block")).filter((name) => /^loop\d+$/.test(name));
  const found = await Promise.all(
    names.map(async (name) => {
      const file = await readFile(join("/sys/block", name, "loop", "backing_file"), "utf8").catch(() => "");
      return file.startsWith(`${directory}/`) ? `/dev/${name}` : undefined;
    }),
  );
  return found.filter((one) => one !== undefined);
};
