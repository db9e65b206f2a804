/** The control plane: etcd, API server, controller manager and scheduler in the hub, where nothing else can hold their ports. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { stringify } from "yaml";
import { kill, makeCgroup } from "./cgroups.ts";
import { writeWhole } from "./files.ts";
import type { Lab } from "./identity.ts";
import { kubeconfigOf, pkiFile } from "./pki.ts";
import { logTail, seenIn, startDetached } from "./processes.ts";
import { eventually, LabError, run } from "./run.ts";

export type Component = "etcd" | "kube-apiserver" | "kube-controller-manager" | "kube-scheduler";
const components: readonly Component[] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

const etcdUrl = "http://127.0.0.1:2379";
const etcdPeerUrl = "http://127.0.0.1:2380";

export const auditLog = (lab: Lab): string => join(lab.state, "log", "audit.log");
const auditPolicy = (lab: Lab): string => join(lab.state, "audit-policy.yaml");
export const componentLog = (lab: Lab, component: Component): string => join(lab.state, "log", `${component}.log`);

/** Every write is logged with who made it, so that writes can be counted; reads are not. */
const auditRules = stringify({
  apiVersion: "audit.k8s.io/v1",
  kind: "Policy",
  omitStages: ["RequestReceived"],
  rules: [{ level: "None", verbs: ["get", "list", "watch"] }, { level: "None", nonResourceURLs: ["*"] }, { level: "Metadata" }],
});

const flags = (options: Record<string, string | number | boolean>): string[] =>
  Object.entries(options).map(([name, value]) => `--${name}=${value}`);

/** Command lines of the control plane's components. Pure. */
export const commandLines = (lab: Lab): Record<Component, string[]> => {
  const pki = (name: string): string => pkiFile(lab, name);
  const authenticated = (user: string): Record<string, string> => {
    const kubeconfig = kubeconfigOf(lab, user);
    return { kubeconfig, "authentication-kubeconfig": kubeconfig, "authorization-kubeconfig": kubeconfig };
  };
  return {
    etcd: flags({
      name: "lab",
      "data-dir": join(lab.state, "etcd"),
      "listen-client-urls": etcdUrl,
      "advertise-client-urls": etcdUrl,
      "listen-peer-urls": etcdPeerUrl,
      "initial-advertise-peer-urls": etcdPeerUrl,
      "initial-cluster": `lab=${etcdPeerUrl}`,
      "unsafe-no-fsync": true,
      "log-level": "warn",
    }),
    "kube-apiserver": flags({
      "etcd-servers": etcdUrl,
      "bind-address": lab.hub.address,
      "advertise-address": lab.hub.address,
      "secure-port": lab.apiPort,
      "cert-dir": join(lab.state, "apiserver"),
      "tls-cert-file": pki("apiserver.crt"),
      "tls-private-key-file": pki("apiserver.key"),
      "client-ca-file": pki("ca.crt"),
      "authorization-mode": "Node,RBAC",
      "enable-admission-plugins": "NodeRestriction",
      "allow-privileged": true,
      "service-account-issuer": "https://kubernetes.default.svc",
      "service-account-key-file": pki("sa.key"),
      "service-account-signing-key-file": pki("sa.key"),
      "service-cluster-ip-range": lab.serviceCidr,
      // Webhooks and aggregated APIs are dialled by their pods' addresses: the hub needs no kube-proxy.
      "enable-aggregator-routing": true,
      "requestheader-client-ca-file": pki("ca.crt"),
      "requestheader-allowed-names": "front-proxy",
      "requestheader-username-headers": "X-Remote-User",
      "requestheader-group-headers": "X-Remote-Group",
      "requestheader-extra-headers-prefix": "X-Remote-Extra-",
      "proxy-client-cert-file": pki("front-proxy.crt"),
      "proxy-client-key-file": pki("front-proxy.key"),
      "kubelet-certificate-authority": pki("ca.crt"),
      "kubelet-client-certificate": pki("kubelet-client.crt"),
      "kubelet-client-key": pki("kubelet-client.key"),
      "kubelet-preferred-address-types": "InternalIP",
      "audit-log-path": auditLog(lab),
      "audit-policy-file": auditPolicy(lab),
      profiling: false,
    }),
    "kube-controller-manager": flags({
      ...authenticated("controller-manager"),
      "bind-address": "127.0.0.1",
      "root-ca-file": pki("ca.crt"),
      "service-account-private-key-file": pki("sa.key"),
      "use-service-account-credentials": true,
      "cluster-signing-cert-file": pki("ca.crt"),
      "cluster-signing-key-file": pki("ca.key"),
      "leader-elect": false,
      "node-monitor-period": "2s",
      "node-monitor-grace-period": "20s",
      "kube-api-qps": 200,
      "kube-api-burst": 400,
      profiling: false,
    }),
    "kube-scheduler": flags({
      ...authenticated("scheduler"),
      "bind-address": "127.0.0.1",
      "leader-elect": false,
      "kube-api-qps": 200,
      "kube-api-burst": 400,
      profiling: false,
    }),
  };
};

/** Pid of a component, undefined when it does not run. */
export const componentPid = async (lab: Lab, component: Component): Promise<number | undefined> => {
  const processes = await seenIn(lab.hub.cgroup);
  return processes.find((one) => one.argv[0]?.endsWith(`/${component}`))?.pid;
};

/** Sends a signal to a component. Throws when it does not run. */
export const signalComponent = async (lab: Lab, component: Component, signal: NodeJS.Signals): Promise<void> => {
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
): Promise<string> => run(join(binaries, "kubectl"), ["--kubeconfig", lab.kubeconfig, ...args], options);

const startComponent = async (lab: Lab, binaries: string, component: Component): Promise<void> => {
  const command = ["nsenter", `--net=${lab.hub.netns}`, "--", join(binaries, component), ...commandLines(lab)[component]];
  await startDetached({ cgroup: lab.hub.cgroup, command, log: componentLog(lab, component) });
};

/** Starts what does not run and waits until the API server is ready. */
export const ensureControlPlane = async (lab: Lab, binaries: string): Promise<void> => {
  await makeCgroup(lab.hub.cgroup);
  await mkdir(join(lab.state, "log"), { recursive: true });
  await writeWhole(auditPolicy(lab), auditRules);
  for (const component of components) {
    if ((await componentPid(lab, component)) === undefined) await startComponent(lab, binaries, component);
    if (component === "kube-apiserver") await apiReady(lab, binaries);
  }
};

/** Waits for /readyz; says what the API server logged when it is not. */
const apiReady = async (lab: Lab, binaries: string): Promise<void> => {
  try {
    await eventually(
      "the API server is ready",
      async () => {
        if ((await componentPid(lab, "kube-apiserver")) === undefined) throw new LabError("it ended");
        return (await kubectl(lab, binaries, ["get", "--raw", "/readyz", "--request-timeout=2s"])) === "ok" ? true : undefined;
      },
      { deadlineMs: 120_000, everyMs: 100 },
    );
  } catch (error) {
    const logs = await Promise.all((["etcd", "kube-apiserver"] as const).map((one) => logTail(componentLog(lab, one), 6)));
    throw new LabError(`${error instanceof Error ? error.message : String(error)}\n${logs.join("\n")}`, { cause: error });
  }
};
