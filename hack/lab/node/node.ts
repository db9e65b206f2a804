/** A node of the lab: brought up, looked at, cut off from power. What runs is found by looking; no file remembers it. */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, openSync, closeSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { kill, killCgroup, leafOf, makeCgroup, moveToLeaf, removeCgroup } from "../cgroups.ts";
import type { Lab, LabNode } from "../identity.ts";
import { ensureNodeNetwork, releaseNamespace } from "../network.ts";
import { isAlive, logTail, seenIn, startDetached, type ProcessSeen } from "../processes.ts";
import { eventually, LabError, run, succeeds } from "../run.ts";
import { cniConfig, containerdConfig, containerdSocket, kubeletConfig, type KubeletFiles } from "./config.ts";

export interface NodeParts {
  /** Directory of the Kubernetes binaries. */
  binaries: string;
  /** The static program that becomes the node's PID 1. */
  pause: string;
  credentials: KubeletFiles & { kubeconfig: string };
  /** Directory that becomes /var/lib/containerd. */
  containerdRoot: string;
}

export type Daemon = "containerd" | "kubelet";

export interface NodeSeen {
  init?: number;
  containerd?: number;
  kubelet?: number;
}

const joinScript = join(import.meta.dirname, "..", "scripts", "join.sh");
const initScript = join(import.meta.dirname, "init.sh");

const initLog = (lab: Lab, node: LabNode): string => join(lab.state, "log", `${node.name}.init.log`);
export const daemonLog = (lab: Lab, node: LabNode, daemon: Daemon): string =>
  join(lab.state, "log", `${node.name}.${daemon}.log`);

const is = (seen: ProcessSeen, program: string): boolean => seen.argv[0]?.split("/").at(-1) === program;

/** Processes of the node that the lab itself started. Pure. */
export const sortSeen = (processes: ProcessSeen[], pause: string): NodeSeen => {
  const init = processes.find((one) => one.argv[0] === pause)?.pid;
  const containerd = processes.find((one) => is(one, "containerd"))?.pid;
  const kubelet = processes.find((one) => is(one, "kubelet"))?.pid;
  return {
    ...(init === undefined ? {} : { init }),
    ...(containerd === undefined ? {} : { containerd }),
    ...(kubelet === undefined ? {} : { kubelet }),
  };
};

/** What of the node runs now. */
export const observeNode = async (node: LabNode, pause: string): Promise<NodeSeen> =>
  sortSeen(await seenIn(leafOf(node.cgroup)), pause);

/** The machine's pid of a node's PID 1. Throws when the node is off. */
export const initOf = async (node: LabNode): Promise<number> => {
  const processes = await seenIn(leafOf(node.cgroup));
  const init = processes.find((one) => /\/pause-[0-9a-f]+$/.test(one.argv[0] ?? ""));
  if (!init) throw new LabError(`node ${node.name} is off: switch it on with "node hack/lab/main.ts power-on ${node.name}"`);
  return init.pid;
};

const intoNode = (init: number): string[] => [
  "nsenter",
  "--target",
  String(init),
  "--mount",
  "--net",
  "--uts",
  "--ipc",
  "--cgroup",
  "--pid",
  "--",
];

/** Arguments that run a command inside a node: its namespaces and its cgroup. */
export const inNodeCommand = async (node: LabNode, command: string[]): Promise<string[]> => {
  const init = await initOf(node);
  return [joinScript, leafOf(node.cgroup), ...intoNode(init), ...command];
};

/** Runs a command inside a node and gives what it printed. */
export const inNode = async (
  node: LabNode,
  command: string[],
  options: { deadlineMs?: number; input?: string } = {},
): Promise<string> => {
  const [program = "", ...args] = await inNodeCommand(node, command);
  return run(program, args, options);
};

const writeConfiguration = async (node: LabNode, credentials: KubeletFiles): Promise<void> => {
  const directory = join(node.state, "config");
  await mkdir(join(directory, "net.d"), { recursive: true });
  await writeFile(join(directory, "containerd.toml"), containerdConfig(node));
  await writeFile(join(directory, "net.d", "10-lab.conflist"), cniConfig(node));
  await writeFile(join(directory, "kubelet.yaml"), kubeletConfig(node, credentials));
};

/** First line of a stream, undefined when it ends without one. */
const firstLine = async (stream: Readable): Promise<string | undefined> => {
  for await (const line of createInterface({ input: stream })) return line;
  return undefined;
};

/** Makes the node's namespaces; resolves once its PID 1 is pause and every mount is made. */
const startInit = async (lab: Lab, node: LabNode, parts: NodeParts): Promise<number> => {
  for (const name of ["kubelet", "drover", "pods"]) await mkdir(join(node.state, name), { recursive: true });
  await mkdir(join(lab.state, "log"), { recursive: true });
  await mkdir(parts.containerdRoot, { recursive: true });
  const namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--cgroup"];
  const command = ["nsenter", `--net=${node.netns}`, "--", "unshare", ...namespaces, initScript];
  const log = openSync(initLog(lab, node), "a");
  const child = spawn(joinScript, [node.cgroup, ...command], {
    detached: true,
    stdio: ["ignore", log, log, "pipe"],
    env: {
      PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      LAB_STATE: lab.state,
      LAB_CACHE: lab.cache,
      LAB_CHECKOUT: lab.checkout,
      NODE_NAME: node.name,
      NODE_STATE: node.state,
      NODE_CONTAINERD: parts.containerdRoot,
      NODE_MACHINE_ID: createHash("sha256").update(`${lab.id}/${node.name}`).digest("hex").slice(0, 32),
      PAUSE: parts.pause,
    },
  });
  closeSync(log);
  child.unref();
  // stdio[3] is a pipe by what is asked for above; its type only says that it may be anything.
  const told = child.stdio[3] as Readable;
  const timer = setTimeout(
    () => told.destroy(new LabError(`node ${node.name}: its namespaces were not made within 20 s`)),
    20_000,
  );
  try {
    const line = await firstLine(told);
    if (line === undefined) throw new LabError(`node ${node.name} did not start:\n${await logTail(initLog(lab, node))}`);
    return Number(line);
  } finally {
    clearTimeout(timer);
    told.destroy();
  }
};

const rootOf = (init: number, path: string): string => `/proc/${init}/root${path}`;

/** Gives the pid of the program that brings it into the node; that ends when the daemon does. */
const startDaemon = async (lab: Lab, node: LabNode, daemon: Daemon, command: string[]): Promise<number> => {
  const init = await initOf(node);
  return startDetached({
    cgroup: leafOf(node.cgroup),
    command: [...intoNode(init), ...command],
    log: daemonLog(lab, node, daemon),
  });
};

/** Waits until the node's containerd answers. */
const containerdAnswers = async (lab: Lab, node: LabNode): Promise<void> => {
  const socket = await nodeSocket(node);
  await eventually(
    `containerd of ${node.name} answers (log: ${daemonLog(lab, node, "containerd")})`,
    async () => {
      if (!existsSync(socket)) return undefined;
      return (await succeeds("ctr", ["--address", socket, "--connect-timeout", "2s", "version"])) || undefined;
    },
    { deadlineMs: 30_000 },
  );
};

/** Starts the node's containerd and waits until it answers. */
export const startContainerd = async (lab: Lab, node: LabNode): Promise<void> => {
  const config = join(node.state, "config", "containerd.toml");
  await startDaemon(lab, node, "containerd", ["containerd", "--config", config, "--log-level", "warn"]);
  await containerdAnswers(lab, node);
};

/** Where the kubelet listens once it has found its container runtime, as /proc/net/tcp writes it: port 10248, listening. */
const HEALTH_PORT = /^\s*\d+: [0-9A-F]+:2808 [0-9A-F]+:0000 0A /m;

/** A kubelet ends when containerd answers but its CRI service is not ready yet; on a real node systemd starts it again. */
const KUBELET_TRIES = 10;

/** Starts the node's kubelet and waits until it runs for good; whether the Node becomes Ready is for others to wait for. */
export const startKubelet = async (lab: Lab, node: LabNode, parts: NodeParts): Promise<void> => {
  const init = await initOf(node);
  const command = [
    join(parts.binaries, "kubelet"),
    `--config=${join(node.state, "config", "kubelet.yaml")}`,
    `--kubeconfig=${parts.credentials.kubeconfig}`,
    `--hostname-override=${node.name}`,
    `--node-ip=${node.address}`,
    "--root-dir=/var/lib/kubelet",
    "--cert-dir=/var/lib/kubelet/pki",
    "-v=2",
  ];
  const listens = async (): Promise<boolean> => HEALTH_PORT.test(await readFile(`/proc/${init}/net/tcp`, "utf8"));
  for (let attempt = 1; attempt <= KUBELET_TRIES; attempt++) {
    // The threads of one that was killed may outlive their process for a moment, and its port with them.
    await eventually(`the port of the kubelet before is free`, async () => !(await listens()) || undefined);
    const pid = await startDaemon(lab, node, "kubelet", command);
    const runs = await eventually(`the kubelet of ${node.name} listens or ends`, async () => {
      if (await listens()) return true;
      return (await isAlive(pid)) ? undefined : false;
    });
    if (runs) return;
  }
  throw new LabError(`the kubelet of ${node.name} does not stay:\n${await logTail(daemonLog(lab, node, "kubelet"), 5)}`);
};

/** The node as it should be: what runs is left alone, what is missing is started. */
export const ensureNode = async (lab: Lab, node: LabNode, parts: NodeParts): Promise<void> => {
  const seen = await observeNode(node, parts.pause);
  await writeConfiguration(node, parts.credentials);
  if (seen.init === undefined) {
    await powerCut(node);
    await makeCgroup(node.cgroup);
    await ensureNodeNetwork(lab, node);
    await startInit(lab, node, parts);
    await moveToLeaf(node.cgroup);
  }
  if (seen.init === undefined || seen.containerd === undefined) await startContainerd(lab, node);
  // One that was started by a command that was killed may not answer yet, and a kubelet does not wait for it.
  else await containerdAnswers(lab, node);
  if (seen.init === undefined || seen.kubelet === undefined) await startKubelet(lab, node, parts);
};

/** Pulls the plug: everything in the node dies at once and its mounts and links go; its disk stays. May be repeated. */
export const powerCut = async (node: LabNode): Promise<void> => {
  await killCgroup(node.cgroup);
  await releaseNamespace(node.netns);
  await removeCgroup(node.cgroup);
};

/** Ends one daemon of a node by a signal and waits for its end. */
export const stopDaemon = async (node: LabNode, daemon: Daemon, signal: NodeJS.Signals): Promise<void> => {
  const processes = await seenIn(leafOf(node.cgroup));
  const found = processes.find((one) => is(one, daemon));
  if (!found) return;
  kill(found.pid, signal);
  await eventually(`${daemon} of ${node.name} ends`, async () => ((await isAlive(found.pid)) ? undefined : true), {
    everyMs: 10,
  });
};

/** The node's containerd socket, by a path on this machine. */
export const nodeSocket = async (node: LabNode): Promise<string> => rootOf(await initOf(node), containerdSocket);
