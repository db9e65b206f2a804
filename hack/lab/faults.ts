/** Bad days, made on purpose: each has its undo, and each may be repeated. */
import { alone, nodeParts, nodesReady } from "./cluster.ts";
import { ensureControlPlane, signalComponent } from "./control.ts";
import { nodeNamed } from "./identity.ts";
import { lab } from "./index.ts";
import * as nodes from "./node/node.ts";

/** Two faults may be asked for at once: the second waits. */
const PATIENCE_MS = 60_000;

const parts = (name: string) => {
  const up = lab();
  const node = nodeNamed(up, name);
  return nodeParts(up, node, up.binaries);
};

/** Pulls a node's plug: all its processes, mounts and links are gone at once; its disk stays. */
export const powerCut = (name: string): Promise<void> => {
  const up = lab();
  return alone(up, () => nodes.powerCut(nodeNamed(up, name)), PATIENCE_MS);
};

/** Switches a node on again; resolves when its kubelet runs, or with `ready` when Kubernetes says Ready of all nodes. */
export const powerOn = async (name: string, { ready = false }: { ready?: boolean } = {}): Promise<void> => {
  const up = lab();
  await alone(up, async () => nodes.ensureNode(up, nodeNamed(up, name), await parts(name)), PATIENCE_MS);
  if (ready) await nodesReady(up, up.binaries);
};

/** Ends a node's kubelet (by SIGKILL unless told otherwise) and starts it again. */
export const restartKubelet = async (name: string, signal: NodeJS.Signals = "SIGKILL"): Promise<void> => {
  const up = lab();
  const node = nodeNamed(up, name);
  await nodes.stopDaemon(node, "kubelet", signal);
  await nodes.startKubelet(up, node, await parts(name));
};

/** Ends a node's containerd and starts it again; resolves when it answers. Its pods' processes live on. */
export const restartContainerd = async (name: string, signal: NodeJS.Signals = "SIGKILL"): Promise<void> => {
  const up = lab();
  const node = nodeNamed(up, name);
  await nodes.stopDaemon(node, "containerd", signal);
  await nodes.startContainerd(up, node);
};

/** The API server stops in the middle of what it does: connections stay open and nothing answers. */
export const freezeApiServer = (): Promise<void> => signalComponent(lab(), "kube-apiserver", "SIGSTOP");

export const thawApiServer = (): Promise<void> => signalComponent(lab(), "kube-apiserver", "SIGCONT");

/** Ends the API server as a crash does. */
export const killApiServer = (): Promise<void> => signalComponent(lab(), "kube-apiserver", "SIGKILL");

/** Starts what of the control plane does not run, and waits until it is ready. */
export const startApiServer = (): Promise<void> => {
  const up = lab();
  return ensureControlPlane(up, up.binaries);
};
