/** A Debian tree to build images on, made by mmdebstrap from the mirror this machine's own apt uses. */
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { exists, madeOnce } from "./files.ts";
import type { Lab } from "./identity.ts";
import type { Progress } from "./progress.ts";
import { LabError, run } from "./run.ts";

/** The mirror of Debian proper named in apt's sources (deb822 or one-line); undefined when none is. Pure. */
export const mirrorIn = (text: string): string | undefined => {
  const addresses = [...text.matchAll(/^\s*(?:URIs:\s*|deb\s+(?:\[[^\]]*\]\s*)?)(\S+)/gm)].map((match) => match[1] ?? "");
  return addresses.find((one) => /^https?:/.test(one) && /\/debian\/?$/.test(one));
};

/** The mirror this machine uses. Throws LabError when its sources name none. */
export const machineMirror = async (): Promise<string> => {
  const directory = "/etc/apt/sources.list.d";
  const names = (await readdir(directory).catch(() => [])).filter((name) => /\.(sources|list)$/.test(name));
  const files = ["/etc/apt/sources.list", ...names.sort().map((name) => join(directory, name))];
  for (const file of files) {
    const mirror = mirrorIn(await readFile(file, "utf8").catch(() => ""));
    if (mirror !== undefined) return mirror;
  }
  throw new LabError("apt's sources name no mirror of Debian: add one to /etc/apt/sources.list.d");
};

/** The tree as a tar in the cache; `key` changes when it is made anew. */
export const ensureBaseTar = async (lab: Lab, suite: string, progress: Progress): Promise<{ path: string; key: string }> => {
  const path = join(lab.cache, "base", `${suite}.tar`);
  if (!(await exists(path))) {
    await progress.step(`Debian ${suite} base tree`, () =>
      madeOnce(path, async (temporary) => {
        const options = ["--variant=minbase", "--format=tar", '--aptopt=APT::Install-Recommends "false"'];
        await run("mmdebstrap", [...options, suite, temporary, `deb ${await machineMirror()} ${suite} main`], {
          deadlineMs: 900_000,
        });
      }),
    );
  }
  const info = await stat(path);
  return { path, key: `${suite}-${info.size}-${Math.trunc(info.birthtimeMs)}` };
};
