/** kube-controller-manager's command line. */
import path from "node:path";
import type { Command, Place } from "./types.ts";

export interface ControllerManagerOptions {
  kubeconfig: string;
  /** Addresses of pods; given out to nodes. Left out: none are given. */
  clusterCidr?: string;
  /** How long a node may be silent before it is NotReady, s; the product's default is 40. */
  nodeGraceSeconds?: number;
  flags?: string[];
}

export const controllerManagerCommand = (place: Place, options: ControllerManagerOptions): Command => ({
  name: "kube-controller-manager",
  command: path.join(place.binaries, "kube-controller-manager"),
  args: [
    `--kubeconfig=${options.kubeconfig}`,
    `--authentication-kubeconfig=${options.kubeconfig}`,
    `--authorization-kubeconfig=${options.kubeconfig}`,
    "--bind-address=127.0.0.1",
    `--secure-port=${place.ports.controllerManager}`,
    `--cert-dir=${path.join(place.directory, "controller-manager")}`,
    `--root-ca-file=${place.pki.ca}`,
    `--service-account-private-key-file=${place.pki.serviceAccountKey}`,
    `--cluster-signing-cert-file=${place.pki.ca}`,
    `--cluster-signing-key-file=${place.pki.caKey}`,
    "--use-service-account-credentials=true",
    `--service-cluster-ip-range=${place.serviceCidr}`,
    ...(options.clusterCidr === undefined ? [] : ["--allocate-node-cidrs=true", `--cluster-cidr=${options.clusterCidr}`]),
    "--leader-elect=false",
    "--node-monitor-period=2s",
    `--node-monitor-grace-period=${options.nodeGraceSeconds ?? 20}s`,
    // The default of 20 per second is a lab's bottleneck.
    "--kube-api-qps=500",
    "--kube-api-burst=1000",
    "--profiling=false",
    ...(options.flags ?? []),
  ],
});
