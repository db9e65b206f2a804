/** The whole lab: what is missing is made, what is there stays. */
import { createServer, type Server } from "node:net";
import { chmod, mkdir } from "node:fs/promises";
import { ensureBinaries } from "./binaries.ts";
import { componentPid, ensureControlPlane, kubectl, nodeCredentials } from "./control.ts";
import { containerdRoot, ensureDisk, refreshImages } from "./disk.ts";
import { sweep, writeWhole } from "./files.ts";
import type { Lab, LabNode } from "./identity.ts";
import { ensureImages, type BuiltImage, type ImageSet } from "./images.ts";
import { ensureHub } from "./network.ts";
import { ensureNode, type NodeParts } from "./node/node.ts";
import { ensurePause, ensurePauseImage } from "./pause.ts";
import { preflight } from "./preflight.ts";
import { isAlive } from "./processes.ts";
import type { Progress } from "./progress.ts";
import { eventually, LabError } from "./run.ts";

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

/** A cluster of ready nodes with the images on them. */
export const ensureCluster = async (lab: Lab, progress: Progress, which: ImageSet | "none"): Promise<ClusterResult> => {
  const running = (await componentPid(lab, "kube-apiserver")) !== undefined;
  await mkdir(lab.cache, { recursive: true });
  await preflight(lab, progress, running);
  await sweep(lab.cache, isAlive);
  const binaries = await ensureBinaries(lab, progress);
  // The nodes' processes read what lies here, and nobody else has to.
  await mkdir(lab.state, { recursive: true });
  await chmod(lab.state, 0o755);
  await writeWhole(`${lab.state}/checkout`, `${lab.checkout}\n`);
  const images = [await ensurePauseImage(lab), ...(which === "none" ? [] : await ensureImages(lab, progress, which))];
  await progress.step("network", () => ensureHub(lab));
  await Promise.all([
    progress.step("control plane", () => ensureControlPlane(lab, binaries)),
    progress.step("the nodes' disk", () => ensureDisk(lab, images, progress)),
  ]);
  await progress.step("nodes started", () =>
    Promise.all(lab.nodes.map(async (node) => ensureNode(lab, node, await nodeParts(lab, node, binaries)))),
  );
  const changed = await progress.step("images on the nodes", () => refreshImages(lab.nodes, images));
  await progress.step("nodes Ready", () => nodesReady(lab, binaries));
  return { binaries, images, changed };
};

/** Waits until every node is Ready and pods can be made. */
export const nodesReady = async (lab: Lab, binaries: string, deadlineMs = 120_000): Promise<void> => {
  const names = lab.nodes.map((node) => `node/${node.name}`);
  const wait = (args: string[]): Promise<string> =>
    kubectl(lab, binaries, ["wait", `--timeout=${deadlineMs / 1000}s`, ...args], { deadlineMs: deadlineMs + 5_000 });
  // In its first moments the API server may refuse even the administrator.
  const created = eventually("nodes registered", async () => wait(["--for=create", "serviceaccount/default", ...names]), {
    everyMs: 200,
    deadlineMs,
  });
  await created.catch((error: unknown) => {
    throw new LabError(`nodes did not register: see ${lab.state}/log/n1.kubelet.log`, { cause: error });
  });
  await wait(["--for=condition=Ready", ...names]);
};
