/** What of the lab runs, for a person. */
import { processesIn } from "./cgroups.ts";
import { componentPid, kubectl } from "./control.ts";
import type { Lab } from "./identity.ts";
import { lab as running } from "./index.ts";
import { observeNode } from "./node/node.ts";
import { ensurePause } from "./pause.ts";
import { LabError } from "./run.ts";

const components = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] as const;

const shown = (pid: number | undefined): string => (pid === undefined ? "-" : String(pid));

/** Lines that tell what runs and where to look. */
export const status = async (lab: Lab): Promise<string[]> => {
  const lines = [`lab ${lab.id} of ${lab.checkout}, addresses ${lab.subnet}, files in ${lab.state}`];
  if ((await processesIn(lab.cgroup)).length === 0) return [...lines, 'nothing runs: "make lab" starts it'];
  for (const component of components) lines.push(`  ${component.padEnd(24)} pid ${shown(await componentPid(lab, component))}`);
  const { program } = await ensurePause(lab);
  for (const node of lab.nodes) {
    const seen = await observeNode(node, program);
    const daemons = `containerd ${shown(seen.containerd)}, kubelet ${shown(seen.kubelet)}`;
    lines.push(`  ${node.name} ${node.address.padEnd(21)} ${seen.init === undefined ? "off" : `init ${seen.init}, ${daemons}`}`);
  }
  try {
    const { binaries } = running();
    const pods = await kubectl(lab, binaries, ["get", "nodes,pods", "--all-namespaces", "-o", "wide", "--request-timeout=5s"]);
    lines.push(`export KUBECONFIG=${lab.kubeconfig} PATH=${binaries}:$PATH`, pods);
  } catch (error) {
    if (!(error instanceof LabError)) throw error;
    lines.push(error.message);
  }
  return lines;
};
