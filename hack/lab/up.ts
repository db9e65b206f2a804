/** `make lab`: cluster, guest, Drover; and what a change of code needs of it. */
import { joinCgroup, removeCgroup } from "./cgroups.ts";
import { alone, ensureCluster } from "./cluster.ts";
import { refreshImages } from "./disk.ts";
import type { Lab } from "./identity.ts";
import { ensureImages } from "./images.ts";
import { lab as running, recordLab } from "./index.ts";
import { installDrover, restartWorkloads, rolloutsDone } from "./install.ts";
import { refuseOrdinaryUser } from "./preflight.ts";
import type { Progress } from "./progress.ts";

export interface UpOptions {
  /** Mounts the working tree over the code in the images. */
  dev: boolean;
  /** Stops when the cluster is there, without Drover. */
  bare: boolean;
}

/** Brings the lab up or repairs it. May be repeated, and after a crash at any point. */
export const up = (lab: Lab, progress: Progress, { dev, bare }: UpOptions): Promise<void> =>
  alone(lab, async () => {
    refuseOrdinaryUser();
    // What we start and wait for must be found by `down` too, should we be killed in the middle; and what is there now was
    // left by one that was.
    await removeCgroup(`${lab.cgroup}/work`);
    await joinCgroup(`${lab.cgroup}/work`);
    const { binaries, changed } = await ensureCluster(lab, progress, bare ? "none" : dev ? "dev" : "all");
    await recordLab(lab, binaries, dev);
    if (!bare) await installDrover(lab, progress, { binaries, dev, changed: changed.map((image) => image.name) });
    progress.note(`ready: export KUBECONFIG=${lab.kubeconfig} PATH=${binaries}:$PATH`);
  });

/**
 * Makes the running Drover that of the working tree: in dev mode its pods are replaced, else images that changed are built,
 * brought to the nodes, and the pods that use them replaced.
 */
export const reload = (lab: Lab, progress: Progress): Promise<void> =>
  alone(lab, async () => {
    const { binaries, dev } = running();
    const images = await ensureImages(lab, progress, dev ? "dev" : "all");
    const changed = await progress.step("images to the nodes", () => refreshImages(lab.nodes, images));
    const names = changed.map((image) => image.name);
    const code = ["localhost/drover-operator:dev", "localhost/drover-node-agent:dev"];
    const restarted = await restartWorkloads(lab, binaries, dev ? [...names, ...code] : names);
    progress.note(restarted.length === 0 ? "nothing has changed" : `replaced: ${restarted.join(", ")}`);
    await rolloutsDone(lab, binaries, progress);
  });
