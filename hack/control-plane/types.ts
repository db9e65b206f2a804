/** What the parts of a control plane have in common. */
import type { Pki } from "./pki.ts";

/** A program and its whole command line; nothing started yet. */
export interface Command {
  name: ComponentName;
  command: string;
  args: string[];
}

export type ComponentName = "etcd" | "kube-apiserver" | "kube-controller-manager" | "kube-scheduler";

/**
 * Starts a program in the background, wherever the caller wants it (another network namespace, a cgroup), its output appended
 * to logFile, and resolves as soon as it has a pid, in the namespace of the caller. Ending it is the caller's task.
 */
export type Launch = (name: string, command: string, args: string[], logFile: string) => Promise<{ pid: number }>;

export interface Ports {
  etcdClient: number;
  etcdPeer: number;
  apiserver: number;
  controllerManager: number;
  scheduler: number;
}

/** Where a control plane lives: the same for all of its parts. */
export interface Place {
  /** IP that everything listens on, and that the API server is advertised with. */
  address: string;
  ports: Ports;
  /** For data, configuration and logs; the control plane's own. */
  directory: string;
  /** Where etcd, kube-apiserver and the others are. */
  binaries: string;
  pki: Pki;
  /** Service addresses; the first of them is the API server's own Service. */
  serviceCidr: string;
}
