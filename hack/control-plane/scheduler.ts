/** kube-scheduler's command line. */
import path from "node:path";
import type { Command, Place } from "./types.ts";

export interface SchedulerOptions {
  kubeconfig: string;
  flags?: string[];
}

export const schedulerCommand = (place: Place, options: SchedulerOptions): Command => ({
  name: "kube-scheduler",
  command: path.join(place.binaries, "kube-scheduler"),
  args: [
    `--kubeconfig=${options.kubeconfig}`,
    `--authentication-kubeconfig=${options.kubeconfig}`,
    `--authorization-kubeconfig=${options.kubeconfig}`,
    "--bind-address=127.0.0.1",
    `--secure-port=${place.ports.scheduler}`,
    `--cert-dir=${path.join(place.directory, "scheduler")}`,
    "--leader-elect=false",
    // The default of 50 per second is 20 s for 1000 pods, whatever the machine.
    "--kube-api-qps=1000",
    "--kube-api-burst=2000",
    "--profiling=false",
    ...(options.flags ?? []),
  ],
});
