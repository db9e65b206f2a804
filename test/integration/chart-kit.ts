/** A control plane with the chart installed. No kubelets run, and no controllers but those asked for: what is made stays as it was made. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { execa } from "execa";
import { binariesDirectory } from "../../hack/control-plane/index.ts";
import { type LocalControlPlane, startLocalControlPlane } from "../../hack/control-plane/local.ts";
import { type Kubectl, kubectlFor } from "./kubectl.ts";

export const NAMESPACE = "drover-system";
export const OPERATOR = `system:serviceaccount:${NAMESPACE}:drover-operator`;
export const chart = path.join(import.meta.dirname, "../../manifests/chart");

export interface Installed {
  plane: LocalControlPlane;
  kubectl: Kubectl;
  helm(...args: string[]): Promise<string>;
  /** What the chart renders to with these `--set` values. */
  render(...values: string[]): Promise<string>;
  /** Installs or upgrades with these `--set` values; what helm says. */
  upgrade(...values: string[]): Promise<string>;
  makeNode(name: string): Promise<void>;
  /** Ends everything. */
  stop(): Promise<void>;
}

const set = (values: string[]): string[] => values.flatMap((value) => ["--set", value]);

/** Starts it, with nodes n1 and n2. When that fails nothing is left. */
export const installChart = async (components: Parameters<typeof startLocalControlPlane>[0] = {}): Promise<Installed> => {
  const plane = await startLocalControlPlane(components);
  const home = await mkdtemp(path.join(tmpdir(), "drover-helm-"));
  const kubectl = kubectlFor(plane.kubeconfig);
  const stop = async (): Promise<void> => {
    await plane.stop();
    await rm(home, { recursive: true, force: true });
  };
  const helm = async (...args: string[]): Promise<string> => {
    const env = { KUBECONFIG: plane.kubeconfig, HELM_CACHE_HOME: home, HELM_CONFIG_HOME: home, HELM_DATA_HOME: home };
    const result = await execa(path.join(binariesDirectory(), "helm"), args, { env, timeout: 120_000, stdin: "ignore" });
    return result.stdout;
  };
  const render = (...values: string[]) => helm("template", "drover", chart, "--namespace", NAMESPACE, ...set(values));
  const upgrade = (...values: string[]) =>
    helm("upgrade", "--install", "drover", chart, "--namespace", NAMESPACE, ...set(values));
  const makeNode = async (name: string): Promise<void> => {
    await kubectl.accepted(["create", "-f", "-"], { apiVersion: "v1", kind: "Node", metadata: { name, labels: { rack: "a" } } });
    const status = { capacity: { cpu: "4", memory: "8Gi" }, images: [{ names: ["a"], sizeBytes: 1 }] };
    await kubectl.accepted(["patch", "node", name, "--subresource=status", "--type=merge", "-p", JSON.stringify({ status })]);
  };
  try {
    await kubectl.accepted(["create", "namespace", NAMESPACE]);
    await makeNode("n1");
    await makeNode("n2");
    await upgrade();
    await kubectl.accepted(["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"]);
  } catch (error) {
    await stop();
    throw error;
  }
  return { plane, kubectl, helm, render, upgrade, makeNode, stop };
};

/** An Instance that is fine. */
export const instance = {
  apiVersion: "drover.dev/v1alpha1",
  kind: "Instance",
  metadata: { name: "shop" },
  spec: {
    type: "VirtualMachine",
    cpu: 1,
    memory: "256Mi",
    rootDisk: { pool: "fast", size: "1Gi" },
    image: { url: "http://images.example/a.qcow2", checksum: `sha256:${"0".repeat(64)}` },
  },
};
