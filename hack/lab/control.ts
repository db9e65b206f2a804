/** The lab's control plane: the same as the integration tests', in the hub, where nothing else can hold its ports. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { stringify } from "yaml";
import { apiserverUrl } from "../control-plane/apiserver.ts";
import { startControlPlane } from "../control-plane/index.ts";
import { certificateFiles, nodeCertificate, writeKubeconfig, type Pki } from "../control-plane/pki.ts";
import type { ComponentName, Launch, Ports } from "../control-plane/types.ts";
import { kill, makeCgroup } from "./cgroups.ts";
import { writeWhole } from "./files.ts";
import type { Lab, LabNode } from "./identity.ts";
import type { NodeParts } from "./node/node.ts";
import { seenIn, startDetached } from "./processes.ts";
import { LabError, run } from "./run.ts";

/** In a namespace of their own: nobody else's. */
const ports = (lab: Lab): Ports => ({
  etcdClient: 2379,
  etcdPeer: 2380,
  apiserver: lab.apiPort,
  controllerManager: 10257,
  scheduler: 10259,
});

const directory = (lab: Lab): string => join(lab.state, "control-plane");
export const auditLog = (lab: Lab): string => join(lab.state, "log", "audit.log");
const auditPolicy = (lab: Lab): string => join(directory(lab), "audit-policy.yaml");

/** Every write is logged with who made it, so that writes can be counted; reads are not. */
const auditRules = stringify({
  apiVersion: "audit.k8s.io/v1",
  kind: "Policy",
  omitStages: ["RequestReceived"],
  rules: [{ level: "None", verbs: ["get", "list", "watch"] }, { level: "None", nonResourceURLs: ["*"] }, { level: "Metadata" }],
});

/** Pid of a component, undefined when it does not run. */
export const componentPid = async (lab: Lab, component: ComponentName): Promise<number | undefined> => {
  const processes = await seenIn(lab.hub.cgroup);
  return processes.find((one) => one.argv[0]?.endsWith(`/${component}`))?.pid;
};

/** Sends a signal to a component. Throws when it does not run. */
export const signalComponent = async (lab: Lab, component: ComponentName, signal: NodeJS.Signals): Promise<void> => {
  const pid = await componentPid(lab, component);
  if (pid === undefined) throw new LabError(`${component} does not run`);
  kill(pid, signal);
};

/** Runs kubectl as the lab's administrator. */
export const kubectl = (
  lab: Lab,
  binaries: string,
  args: string[],
  options: { deadlineMs?: number; input?: string } = {},
): Promise<string> =>
  run(join(binaries, "kubectl"), ["--kubeconfig", lab.kubeconfig, ...args], {
    ...options,
    // Not in the user's home.
    env: { KUBECACHEDIR: join(lab.state, "kube-cache") },
  });

/**
 * The API server of the lab collects its garbage seldom: on a cluster it is another machine that does, here it takes both processors for a tenth
 * of a second from the guests, several times a minute.
 */
const ENVIRONMENT: { readonly [name: string]: Record<string, string> } = {
  "kube-apiserver": { GOGC: "400", GOMEMLIMIT: "1GiB" },
};

/** Starts a component in the hub, unless it runs there already. */
const launch =
  (lab: Lab): Launch =>
  async (name, command, args, log) => {
    const running = (await seenIn(lab.hub.cgroup)).find((one) => one.argv[0]?.endsWith(`/${name}`));
    if (running) return { pid: running.pid };
    const pid = await startDetached({
      cgroup: lab.hub.cgroup,
      command: ["nsenter", `--net=${lab.hub.netns}`, "--", command, ...args],
      log,
      env: ENVIRONMENT[name] ?? {},
    });
    return { pid };
  };

/** Asks a server on the hub's loopback: its HTTP status, 0 when it does not answer. */
const probeInHub =
  (lab: Lab) =>
  async (url: string, pki: Pki): Promise<number> => {
    const { cert, key } = certificateFiles(pki, "admin");
    const curl = ["curl", "--insecure", "--silent", "--max-time", "2", "--cert", cert, "--key", key];
    const asked = run("nsenter", [
      `--net=${lab.hub.netns}`,
      "--",
      ...curl,
      "--output",
      "/dev/null",
      "--write-out",
      "%{http_code}",
      url,
    ]);
    return Number(await asked.catch(() => "0"));
  };

/** Credentials of a node's kubelet. */
export type NodeCredentials = NodeParts["credentials"];

const pkiOf = (lab: Lab): Pki => {
  const files = join(directory(lab), "pki");
  return {
    directory: files,
    ca: join(files, "ca.crt"),
    caKey: join(files, "ca.key"),
    serviceAccountKey: join(files, "service-account.key"),
  };
};

const certificateOf = (node: LabNode) => nodeCertificate(node.name, node.address);

const nodeKubeconfig = (lab: Lab, node: LabNode): string => join(directory(lab), "kubeconfig", `${node.name}.conf`);

/** Where the node's kubelet finds what it proves itself with; the control plane has made it. */
export const nodeCredentials = (lab: Lab, node: LabNode): NodeCredentials => {
  const files = certificateFiles(pkiOf(lab), certificateOf(node).name);
  return { ca: pkiOf(lab).ca, certificate: files.cert, key: files.key, kubeconfig: nodeKubeconfig(lab, node) };
};

/** Starts what does not run, waits until all of it is ready, and leaves the kubeconfigs of the nodes and the administrator. */
export const ensureControlPlane = async (lab: Lab, binaries: string): Promise<void> => {
  await makeCgroup(lab.hub.cgroup);
  await mkdir(join(lab.state, "log"), { recursive: true });
  await writeWhole(auditPolicy(lab), auditRules);
  const plane = await startControlPlane({
    launch: launch(lab),
    address: lab.hub.address,
    ports: ports(lab),
    directory: directory(lab),
    binaries,
    serviceCidr: lab.serviceCidr,
    certificates: lab.nodes.map(certificateOf),
    apiserver: { audit: { policyFile: auditPolicy(lab), logFile: auditLog(lab) } },
    controllerManager: { nodeGraceSeconds: 20 },
    scheduler: {},
    probeLoopback: probeInHub(lab),
  }).catch((cause: unknown) => {
    throw new LabError(`the control plane did not start: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  });
  const server = apiserverUrl(plane.place);
  for (const node of lab.nodes) await writeKubeconfig(plane.pki, certificateOf(node).name, server, nodeKubeconfig(lab, node));
  await writeKubeconfig(plane.pki, "admin", server, lab.kubeconfig);
};
