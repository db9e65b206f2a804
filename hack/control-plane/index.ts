/**
 * A control plane of real Kubernetes: etcd, kube-apiserver and, if wanted, kube-controller-manager and kube-scheduler. Where
 * and how the programs are started is the caller's (`launch`), and so is ending them.
 */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { apiserverCommand, apiserverUrl, type ApiserverOptions } from "./apiserver.ts";
import { controllerManagerCommand, type ControllerManagerOptions } from "./controller-manager.ts";
import { etcdCommand, etcdUrl, type EtcdOptions } from "./etcd.ts";
import { controlPlaneCertificates, makePki, writeKubeconfig, type Certificate, type Pki } from "./pki.ts";
import { probe, probeAlive, untilReady, type Probe } from "./ready.ts";
import { schedulerCommand, type SchedulerOptions } from "./scheduler.ts";
import type { Command, ComponentName, Launch, Place, Ports } from "./types.ts";

export interface ControlPlaneOptions {
  launch: Launch;
  /** IP that the API server listens on and is advertised with; it must be there already. */
  address: string;
  ports: Ports;
  /** For data, keys, configuration and logs: the control plane's own. What is in it is used again. */
  directory: string;
  /** Default: `binariesDirectory()`. */
  binaries?: string;
  /** Default 10.96.0.0/16. */
  serviceCidr?: string;
  /** Made beside the control plane's own, such as a kubelet's (`nodeCertificate`). */
  certificates?: Certificate[];
  etcd?: EtcdOptions;
  apiserver?: ApiserverOptions;
  /** Left out: not started. */
  controllerManager?: Omit<ControllerManagerOptions, "kubeconfig">;
  /** Left out: not started. */
  scheduler?: Omit<SchedulerOptions, "kubeconfig">;
  /**
   * Asks etcd, controller-manager and scheduler, which listen on 127.0.0.1 of where they run. To be given when that is another
   * network namespace; the API server is asked at its address from here in any case.
   */
  probeLoopback?: Probe;
  /** Until one program is ready; default 90 s (a busy machine, an API server that makes its first objects). */
  deadlineMs?: number;
}

export interface Started {
  pid: number;
  command: Command;
  logFile: string;
}

export interface ControlPlane {
  server: string;
  pki: Pki;
  place: Place;
  /** The administrator's kubeconfig. */
  kubeconfig: string;
  started: Partial<Record<ComponentName, Started>>;
  /** Starts one of them again, with the command line it had, and waits until it is ready. It must have ended. */
  restart(name: ComponentName): Promise<Started>;
}

/** DROVER_BIN, else `bin` in the cache directory. */
export const binariesDirectory = (env: NodeJS.ProcessEnv = process.env): string =>
  env["DROVER_BIN"] ?? path.join(env["DROVER_CACHE"] ?? "/var/cache/drover", "bin");

/** First address after the network's own: the Service `kubernetes`. */
export const firstServiceIp = (cidr: string): string => {
  const network = /^(\d+\.\d+\.\d+)\.0\/\d+$/.exec(cidr)?.[1];
  if (network === undefined) throw new Error(`serviceCidr ${cidr}: give an IPv4 network that ends in .0, such as 10.96.0.0/16`);
  return `${network}.1`;
};

/**
 * Starts what is asked for and resolves when all of it is ready. When it throws, programs started before may still run: the
 * caller, who launched them, ends them.
 */
export const startControlPlane = async (options: ControlPlaneOptions): Promise<ControlPlane> => {
  const { address, ports, directory, serviceCidr = "10.96.0.0/16" } = options;
  const logs = path.join(directory, "log");
  await mkdir(logs, { recursive: true });
  const certificates = [...controlPlaneCertificates(address, firstServiceIp(serviceCidr)), ...(options.certificates ?? [])];
  const pki = await makePki(path.join(directory, "pki"), certificates);
  const place: Place = { address, ports, directory, binaries: options.binaries ?? binariesDirectory(), pki, serviceCidr };
  const server = apiserverUrl(place);
  const config = (name: string): Promise<string> =>
    writeKubeconfig(pki, name, server, path.join(directory, "kubeconfig", `${name}.conf`));

  const started: ControlPlane["started"] = {};
  const begin = async (command: Command): Promise<Started> => {
    const logFile = path.join(logs, `${command.name}.log`);
    const { pid } = await options.launch(command.name, command.command, command.args, logFile);
    const one = { pid, command, logFile };
    started[command.name] = one;
    await untilReady({
      name: command.name,
      pki,
      pid,
      logFile,
      deadlineMs: options.deadlineMs ?? 90_000,
      ...readiness(command.name, place, options),
    });
    return one;
  };

  await begin(etcdCommand(place, options.etcd));
  await begin(apiserverCommand(place, options.apiserver));
  const controllers: Promise<Started>[] = [];
  if (options.controllerManager) {
    controllers.push(
      begin(controllerManagerCommand(place, { ...options.controllerManager, kubeconfig: await config("controller-manager") })),
    );
  }
  if (options.scheduler)
    controllers.push(begin(schedulerCommand(place, { ...options.scheduler, kubeconfig: await config("scheduler") })));
  await Promise.all(controllers);
  return {
    server,
    pki,
    place,
    kubeconfig: await config("admin"),
    started,
    restart: (name) => {
      const before = started[name];
      return before ? begin(before.command) : Promise.reject(new Error(`${name} was never started`));
    },
  };
};

const readiness = (name: ComponentName, place: Place, options: ControlPlaneOptions): { url: string; probe: Probe } => {
  const { controllerManager, scheduler } = place.ports;
  const all: Record<ComponentName, { url: string; probe: Probe }> = {
    etcd: { url: `${etcdUrl(place)}/health`, probe: options.probeLoopback ?? probe },
    "kube-apiserver": { url: `${apiserverUrl(place)}/readyz`, probe },
    "kube-controller-manager": {
      url: `https://127.0.0.1:${controllerManager}/healthz`,
      probe: options.probeLoopback ?? probeAlive,
    },
    "kube-scheduler": { url: `https://127.0.0.1:${scheduler}/healthz`, probe: options.probeLoopback ?? probeAlive },
  };
  return all[name];
};
