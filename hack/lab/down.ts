/**
 * Takes the lab away, whatever state it is in: everything is found by its place (cgroup, mounts and loops below the state
 * directory, one link), not by a record that a crash could have left wrong.
 */
import { readFile, rm } from "node:fs/promises";
import { removeCgroup } from "./cgroups.ts";
import type { Lab } from "./identity.ts";
import { loopsBelow, mountsBelow } from "./leftovers.ts";
import { dropLink } from "./network.ts";
import { restorePolicy } from "./packages.ts";
import type { Progress } from "./progress.ts";
import { eventually, run } from "./run.ts";

/** Unmounts everything below a directory, deepest first. */
const unmountBelow = async (directory: string): Promise<void> => {
  await eventually(`nothing mounted below ${directory}`, async () => {
    const mounts = mountsBelow(await readFile("/proc/self/mountinfo", "utf8"), directory);
    for (const path of mounts) await run("umount", ["-l", path]);
    return mounts.length === 0 ? true : undefined;
  });
};

/** Detaches loop devices whose backing file lies, or lay, below a directory; those of pools were attached inside the nodes. */
const detachBelow = async (directory: string, inside: string[]): Promise<void> => {
  await eventually(`no loop device on files below ${directory}`, async () => {
    const loops = await loopsBelow(directory, inside);
    for (const loop of loops) await run("losetup", ["-d", loop]).catch(() => undefined);
    return loops.length === 0 ? true : undefined;
  });
};

/** Ends and removes all of the lab. May be repeated, and after a crash at any point. */
export const down = async (lab: Lab, progress: Progress): Promise<void> => {
  await progress.step("processes and cgroups", () => removeCgroup(lab.cgroup));
  await progress.step("network, mounts, loop devices", async () => {
    await dropLink(lab.host.link, (args) => run("ip", args));
    await unmountBelow(lab.state);
    await detachBelow(
      lab.state,
      lab.nodes.map((node) => `${node.state}/drover`),
    );
  });
  await progress.step("files", async () => {
    await rm(lab.state, { recursive: true, force: true });
    await rm(lab.out, { recursive: true, force: true });
    await restorePolicy();
  });
};
