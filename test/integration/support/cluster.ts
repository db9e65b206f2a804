/** A real API server and scheduler with Drover's kinds, and what its audit log says. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parse } from "yaml";
import type { Instance } from "../../../crds/instance.ts";
import { CLAIM_LABEL } from "../../../crds/names.ts";
import { instances } from "../../../crds/resources.ts";
import { startLocalControlPlane, type LocalControlPlane } from "../../../hack/control-plane/local.ts";
import {
  Informer,
  KubeClient,
  resource,
  resources,
  type CustomResourceDefinition,
  type KubeObject,
  type Pod,
} from "../../../kube/index.ts";

export const NAMESPACE = "team-a";
export const OPERATOR_NAMESPACE = "drover-system";
const serviceAccounts = resource<KubeObject>("", "v1", "serviceaccounts", "ServiceAccount");
const priorityClasses = resource<KubeObject>("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", false);

/** Resolves with the first truthy answer; asked again at every change of the cache. */
export function until<T extends KubeObject, R>(
  what: string,
  informer: Informer<T>,
  ask: () => R | undefined | false,
  deadlineMs = 20_000,
): Promise<R> {
  return new Promise((resolve, reject) => {
    let unwatch: () => void = () => undefined;
    const timer = setTimeout(() => {
      unwatch();
      reject(new Error(`not within ${deadlineMs} ms: ${what}; there is ${JSON.stringify(informer.list()).slice(-3000)}`));
    }, deadlineMs);
    const look = () => {
      const answer = ask();
      if (answer === undefined || answer === false) return;
      clearTimeout(timer);
      queueMicrotask(() => unwatch());
      resolve(answer);
    };
    unwatch = informer.onChange(look);
    look();
  });
}

export interface Cluster {
  plane: LocalControlPlane;
  client: KubeClient;
  seenInstances: Informer<Instance>;
  seenPods: Informer<Pod>;
  auditLog: string;
  stop(): Promise<void>;
}

const AUDIT_POLICY = {
  apiVersion: "audit.k8s.io/v1",
  kind: "Policy",
  omitStages: ["RequestReceived"],
  rules: [{ level: "Metadata", verbs: ["create", "update", "patch", "delete"] }, { level: "None" }],
};

async function auditFiles(): Promise<{ directory: string; policyFile: string; logFile: string }> {
  const directory = await mkdtemp(path.join(tmpdir(), "drover-audit-"));
  const policyFile = path.join(directory, "policy.json");
  await writeFile(policyFile, JSON.stringify(AUDIT_POLICY));
  return { directory, policyFile, logFile: path.join(directory, "audit.log") };
}

interface AuditEntry {
  verb: string;
  userAgent: string;
  objectRef?: { resource: string; subresource?: string; name?: string };
  responseStatus?: { code: number };
}

/** What the API server says that a program wrote about objects whose name begins so: `verb resource/subresource code`, in order. */
export async function writesOf(cluster: Cluster, userAgent: string, name: RegExp): Promise<string[]> {
  const lines = (await readFile(cluster.auditLog, "utf8")).trim().split("\n");
  return lines
    .map((line) => JSON.parse(line) as AuditEntry)
    .filter((entry) => entry.userAgent === userAgent && name.test(entry.objectRef?.name ?? ""))
    .map(({ verb, objectRef, responseStatus }) => {
      const where = [objectRef?.resource, objectRef?.subresource].filter((part) => part !== undefined).join("/");
      return `${verb} ${where} ${responseStatus?.code}`;
    });
}

async function applyCrds(client: KubeClient): Promise<void> {
  const crds = new Informer(client, resources.customResourceDefinitions);
  const ended = new AbortController();
  crds.start(ended.signal);
  for (const plural of ["instances", "networks", "storagepools", "hosts", "migrations", "rollouts"]) {
    const file = fileURLToPath(new URL(`../../../crds/generated/${plural}.yaml`, import.meta.url));
    const crd = parse(await readFile(file, "utf8")) as CustomResourceDefinition;
    await client.create(resources.customResourceDefinitions, crd);
    await until(`CRD ${plural} is served`, crds, () =>
      crds
        .get({ name: crd.metadata.name })
        ?.status?.conditions?.some(({ type, status }) => type === "Established" && status === "True"),
    );
  }
  ended.abort();
  await crds.stopped();
}

export async function makeNamespace(client: KubeClient, name: string): Promise<void> {
  await client.create(resources.namespaces, { apiVersion: "v1", kind: "Namespace", metadata: { name } });
  // The controller-manager, which would make it, does not run.
  await client.create(serviceAccounts, {
    apiVersion: "v1",
    kind: "ServiceAccount",
    metadata: { name: "default", namespace: name },
  });
}

/** etcd, API server, scheduler; Drover's CRDs, namespaces and the claims' PriorityClass. */
export async function startCluster(): Promise<Cluster> {
  const audit = await auditFiles();
  const plane = await startLocalControlPlane({ scheduler: {}, apiserver: { audit } });
  const client = KubeClient.fromKubeconfig(await readFile(plane.kubeconfig, "utf8"), { userAgent: "drover-test" });
  await applyCrds(client);
  for (const name of [NAMESPACE, OPERATOR_NAMESPACE]) await makeNamespace(client, name);
  await client.create(priorityClasses, {
    apiVersion: "scheduling.k8s.io/v1",
    kind: "PriorityClass",
    metadata: { name: "drover-claim" },
    value: 1_000_000,
  } as KubeObject);
  const seen = await watchCluster(client);
  const stop = async () => {
    await seen.stop();
    await plane.stop();
    await rm(audit.directory, { recursive: true, force: true });
  };
  return { plane, client, ...seen, auditLog: audit.logFile, stop };
}

/** Caches of all Instances and claims, of the test's own. */
export async function watchCluster(client: KubeClient): Promise<Pick<Cluster, "seenInstances" | "seenPods" | "stop">> {
  const seenInstances = new Informer(client, instances);
  const seenPods = new Informer(client, resources.pods, { labelSelector: CLAIM_LABEL });
  const ended = new AbortController();
  for (const one of [seenInstances, seenPods]) one.start(ended.signal);
  await Promise.all([seenInstances.synced, seenPods.synced]);
  const stop = async () => {
    ended.abort();
    await Promise.all([seenInstances.stopped(), seenPods.stopped()]);
  };
  return { seenInstances, seenPods, stop };
}
