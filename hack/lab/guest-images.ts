/** The guest's images, built or from the cache, served inside the lab, and told to whoever wants to use them. */
import { copyFile, link, mkdir, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { buildGuest, type GuestFile } from "../guest/build.ts";
import { makeCgroup } from "./cgroups.ts";
import { exists, writeWhole } from "./files.ts";
import type { Lab } from "./identity.ts";
import { logTail, seenIn, startDetached } from "./processes.ts";
import type { Progress } from "./progress.ts";
import { eventually, LabError } from "./run.ts";

export const imageDirectory = (lab: Lab): string => join(lab.state, "images");
export const imageUrl = (lab: Lab): string => `http://${lab.hub.address}:${lab.imagePort}`;

const serverScript = join(import.meta.dirname, "image-server.ts");
const serverLog = (lab: Lab): string => join(lab.state, "log", "image-server.log");

/** Puts a file into the served directory. A link where it can be one: what is served is never written to. */
const put = async (file: string, directory: string): Promise<void> => {
  const target = join(directory, basename(file));
  await rm(target, { force: true });
  await link(file, target).catch(() => copyFile(file, target));
};

const startServer = async (lab: Lab): Promise<void> => {
  const running = (await seenIn(lab.hub.cgroup)).some((one) => one.argv.includes(serverScript));
  if (running) return;
  await makeCgroup(lab.hub.cgroup);
  const args = [imageDirectory(lab), lab.hub.address, String(lab.imagePort)];
  await startDetached({
    cgroup: lab.hub.cgroup,
    command: ["nsenter", `--net=${lab.hub.netns}`, "--", process.execPath, serverScript, ...args],
    log: serverLog(lab),
  });
  const answers = eventually("the image server answers", async () => {
    const response = await fetch(`${imageUrl(lab)}/`, { method: "HEAD", signal: AbortSignal.timeout(1_000) });
    return response.status === 404 ? true : undefined;
  });
  await answers.catch(async (cause: unknown) => {
    throw new LabError(`the image server did not start:\n${await logTail(serverLog(lab))}`, { cause });
  });
};

/** Builds the guest if need be, serves its images and writes `.lab/images.json`. May be repeated. */
export const ensureGuestImages = async (lab: Lab, progress: Progress): Promise<void> => {
  const directory = imageDirectory(lab);
  await mkdir(directory, { recursive: true });
  const { qcow2, raw } = await progress.step("the guest's image", () => buildGuest(lab.cache));
  for (const one of [qcow2, raw])
    if (!(await exists(one.file))) throw new LabError(`${one.file} is gone from the cache: run it again`);
  for (const one of [qcow2, raw]) await put(one.file, directory);
  const told = ({ file, checksum, virtualSizeBytes }: GuestFile) => ({
    url: `${imageUrl(lab)}/${basename(file)}`,
    checksum,
    virtualSizeBytes,
  });
  await writeWhole(join(lab.out, "images.json"), `${JSON.stringify({ tiny: told(qcow2), tinyRaw: told(raw) }, null, 2)}\n`);
  await startServer(lab);
};
