/**
 * Where the API server is and as whom we speak to it. In a cluster: the service account's files, with client-node's own
 * FileAuth, which costs 2 MB. Elsewhere: client-node's whole KubeConfig (contexts, exec plugins, OIDC, proxies), loaded only
 * then, because it pulls in every generated API and costs 80 MB.
 */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import type { Agent, RequestOptions } from "node:https";
import { createRequire } from "node:module";
import { isIPv6 } from "node:net";
import path from "node:path";
import type * as ConfigModule from "@kubernetes/client-node/dist/config.js";
import { FileAuth } from "@kubernetes/client-node/dist/file_auth.js";

/** What one request needs; `identity` changes when connections made before must not be used any more. */
export interface Access {
  headers: Record<string, string>;
  tls: Pick<RequestOptions, "ca" | "cert" | "key" | "passphrase" | "pfx" | "servername" | "rejectUnauthorized">;
  identity: string;
  /** Set where connections must go through a proxy. */
  agent?: Agent;
}

export interface Credentials {
  /** Base URL of the API server. */
  readonly server: string;
  /** The namespace that the process or the context is in. */
  readonly namespace: string | undefined;
  /** Headers and TLS as of now. `refused`: the last ones were answered with 401, so nothing cached may be used. */
  access(refused?: boolean): Promise<Access>;
}

const SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount";

/**
 * KUBECONFIG if it is set; else the pod's service account; else the default kubeconfig of the user.
 * @throws when there is none of them
 */
export const defaultCredentials = (env: NodeJS.ProcessEnv = process.env): Credentials => {
  if (env["KUBECONFIG"]) return kubeconfigCredentials();
  if (env["KUBERNETES_SERVICE_HOST"] && existsSync(path.join(SERVICE_ACCOUNT, "token"))) return inClusterCredentials(env);
  return kubeconfigCredentials();
};

/** The service account of a pod. The kubelet replaces token and CA while the pod runs: both are read again, at most a minute late. */
export const inClusterCredentials = (env: NodeJS.ProcessEnv, directory: string = SERVICE_ACCOUNT): Credentials => {
  const host = env["KUBERNETES_SERVICE_HOST"] ?? "";
  const port = env["KUBERNETES_SERVICE_PORT"] ?? "443";
  const user = { name: "pod", authProvider: { name: "tokenFile", config: { tokenFile: path.join(directory, "token") } } };
  const caFile = path.join(directory, "ca.crt");
  let auth = new FileAuth();
  let ca: { text: string; readAt: number } | undefined;
  return {
    server: `https://${isIPv6(host) ? `[${host}]` : host}:${port}`,
    namespace: readIfThere(path.join(directory, "namespace")),
    async access(refused = false) {
      if (refused) auth = new FileAuth();
      if (refused || !ca || performance.now() - ca.readAt > 60_000)
        ca = { text: await readFile(caFile, "utf8"), readAt: performance.now() };
      const applied = { headers: {} as Record<string, string> };
      await auth.applyAuthentication(user, applied);
      const headers = Object.fromEntries(Object.entries(applied.headers).map(([name, value]) => [name, value.trim()]));
      return { headers, tls: { ca: ca.text }, identity: fingerprint([ca.text]) };
    },
  };
};

const readIfThere = (file: string): string | undefined => (existsSync(file) ? readFileSync(file, "utf8").trim() : undefined);

/**
 * A kubeconfig through client-node: its loading rules, client certificates, tokens, exec plugins, OIDC refresh.
 * @param text a kubeconfig's text, instead of KUBECONFIG and the user's default file
 * @throws when it names no cluster
 */
export const kubeconfigCredentials = (text?: string): Credentials => {
  const { KubeConfig } = createRequire(import.meta.url)("@kubernetes/client-node/dist/config.js") as typeof ConfigModule;
  const config = new KubeConfig();
  if (text === undefined) config.loadFromDefault();
  else config.loadFromString(text);
  const cluster = config.getCurrentCluster();
  if (!cluster)
    throw new Error("no API server is configured: set KUBECONFIG to a kubeconfig whose current-context names a cluster");
  return {
    server: cluster.server.replace(/\/+$/, ""),
    namespace: config.getContextObject(config.currentContext)?.namespace,
    async access() {
      const options: RequestOptions = {};
      await config.applyToHTTPSOptions(options);
      const headers: Record<string, string> = {};
      for (const [name, value] of Object.entries((options.headers ?? {}) as Record<string, unknown>)) {
        if (typeof value === "string") headers[name] = value;
      }
      if (options.auth) headers["Authorization"] = `Basic ${Buffer.from(options.auth).toString("base64")}`;
      const { ca, cert, key, passphrase, pfx, servername, rejectUnauthorized } = options;
      const tls = dropUndefined({ ca, cert, key, passphrase, pfx, servername, rejectUnauthorized });
      const identity = fingerprint(Object.values(tls));
      return cluster.proxyUrl && options.agent
        ? { headers, tls, identity, agent: options.agent as Agent }
        : { headers, tls, identity };
    },
  };
};

const dropUndefined = <T extends object>(value: T): T =>
  Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined)) as T;

const fingerprint = (parts: unknown[]): string => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(Buffer.isBuffer(part) ? part : String(part)).update("\0");
  return hash.digest("hex");
};
