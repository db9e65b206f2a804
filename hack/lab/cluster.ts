/** The whole lab: what is missing is made, what is there stays. */
import { createServer, type Server } from "node:net";
import { chmod, mkdir } from "node:fs/promises";
import { ensureBinaries } from "./binaries.ts";
import { componentPid, ensureControlPlane, kubectl, nodeCredentials } from "./control.ts";
import { containerdRoot, ensureDisk, refreshImages } from "./disk.ts";
import { sweep, writeWhole } from "./files.ts";
import { ensureGuestImages } from "./guest-images.ts";
import type { Lab, LabNode } from "./identity.ts";
import { ensureImages, type BuiltImage, type ImageSet } from "./images.ts";
import { ensureHub } from "./network.ts";
import { daemonLog, ensureNode, observeNode, type NodeParts } from "./node/node.ts";
import { ensurePause, ensurePauseImage } from "./pause.ts";
import { preflight } from "./preflight.ts";
import { isAlive, logTail } from "./processes.ts";
import type { Progress } from "./progress.ts";
import { eventually, HopelessError, together } from "./run.ts";

/**
 * Runs work while no other command changes this lab, waiting up to `waitMs` for one that does. The lock is an abstract socket:
 * the kernel frees it when we end, however we do.
 */
export const alone = async <T>(lab: Lab, work: () => Promise<T>, waitMs = 0): Promise<T> => {
  const take = (): Promise<Server> =>
    new Promise((resolve, reject) => {
      const server = createServer();
      server.once("error", reject);
      server.listen(`\0drover-lab-${lab.id}`, () => resolve(server));
    });
  const lock = await eventually("no other command changes this lab", take, { deadlineMs: waitMs, everyMs: 100 });
  try {
    return await work();
  } finally {
    lock.close();
  }
};

/** What a node is started from. */
export const nodeParts = async (lab: Lab, node: LabNode, binaries: string): Promise<NodeParts> => ({
  binaries,
  pause: (await ensurePause(lab)).program,
  containerdRoot: containerdRoot(lab, node),
  credentials: nodeCredentials(lab, node),
});

export interface ClusterResult {
  binaries: string;
  images: BuiltImage[];
  /** Images whose content changed on nodes that ran already. */
  changed: BuiltImage[];
}

/** A cluster of ready nodes with the images on them, and the guest's image served beside them. */
export const ensureCluster = async (lab: Lab, progress: Progress, which: ImageSet | "none"): Promise<ClusterResult> => {
  const running = (await componentPid(lab, "kube-apiserver")) !== undefined;
  await mkdir(lab.cache, { recursive: true });
  await preflight(lab, progress, { running, bare: which === "none" });
  await sweep(lab.cache, isAlive);
  const binaries = await ensureBinaries(lab, progress);
  // The nodes' processes read what lies here, and nobody else has to.
  await mkdir(lab.state, { recursive: true });
  await chmod(lab.state, 0o755);
  await writeWhole(`${lab.state}/checkout`, `${lab.checkout}\n`);
  await progress.step("network", () => ensureHub(lab));
  const imagesOnDisk = async (): Promise<BuiltImage[]> => {
    const images = [await ensurePauseImage(lab), ...(which === "none" ? [] : await ensureImages(lab, progress, which))];
    await progress.step("the nodes' disk", () => ensureDisk(lab, images, progress));
    return images;
  };
  const [images] = await together([
    imagesOnDisk(),
    progress.step("control plane", () => ensureControlPlane(lab, binaries)),
    ensureGuestImages(lab, progress),
  ]);
  await progress.step("nodes started", () =>
    Promise.all(lab.nodes.map(async (node) => ensureNode(lab, node, await nodeParts(lab, node, binaries)))),
  );
  const changed = await progress.step("images on the nodes", () => refreshImages(lab.nodes, images));
  await progress.step("nodes Ready", () => nodesReady(lab, binaries));
  return { binaries, images, changed };
};

/** Throws what a node's kubelet said last, if it has ended: then no waiting helps. */
const kubeletsRun = async (lab: Lab): Promise<void> => {
  const { program } = await ensurePause(lab);
  for (const node of lab.nodes) {
    const seen = await observeNode(node, program);
    if (seen.init === undefined || seen.kubelet !== undefined) continue;
    throw new HopelessError(`the kubelet of ${node.name} has ended:\n${await logTail(daemonLog(lab, node, "kubelet"), 4)}`);
  }
};

/** Waits until every node is Ready and pods can be made. */
export const nodesReady = async (lab: Lab, binaries: string, deadlineMs = 120_000): Promise<void> => {
  const names = lab.nodes.map((node) => `node/${node.name}`);
  // In slices: between them is asked whether there is still something to wait for.
  const wait = (what: string, args: string[]): Promise<string> =>
    eventually(
      what,
      async () => {
        await kubeletsRun(lab);
        return kubectl(lab, binaries, ["wait", "--timeout=5s", ...args]);
      },
      { deadlineMs, everyMs: 200 },
    );
  await wait("nodes registered", ["--for=create", "serviceaccount/default", ...names]);
  await wait("nodes Ready", ["--for=condition=Ready", ...names]);
};
