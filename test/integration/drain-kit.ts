/** What a test of evictions needs: the chart's webhook, served by this process, and evictions as their askers make them. */
import { readFile } from "node:fs/promises";
import path from "node:path";
import { execa } from "execa";
import { parseAllDocuments } from "yaml";
import { z } from "zod";
import { binariesDirectory } from "../../hack/control-plane/index.ts";
import { certificateFiles } from "../../hack/control-plane/pki.ts";
import { realClock, silentLogger } from "../../kube/index.ts";
import { makeCaches, startCaches } from "../../operator/context.ts";
import { serveWebhook, type Webhook } from "../../operator/drain/webhook.ts";
import { chart } from "./chart-kit.ts";
import { kubectlFor, type Kubectl } from "./kubectl.ts";
import { NAMESPACE, type Cluster } from "./operator-kit.ts";

const TOKEN = "0123456789abcdef0123456789abcdef";

const configuration = z.looseObject({
  webhooks: z.array(z.looseObject({ clientConfig: z.looseObject({ service: z.looseObject({ path: z.string() }) }) })).length(1),
});

/** The chart's own configuration, but for the address: here the webhook is not in a pod. */
async function webhookConfiguration(cluster: Cluster, port: number): Promise<object> {
  const args = ["template", "drover", chart, "--namespace", "drover-system", "--show-only", "templates/operator/webhook.yaml"];
  const { stdout } = await execa(path.join(binariesDirectory(), "helm"), args, { timeout: 60_000 });
  const rendered = parseAllDocuments(stdout)
    .map((document) => document.toJS() as { kind: string })
    .find(({ kind }) => kind === "ValidatingWebhookConfiguration");
  const { webhooks, ...rest } = configuration.parse(rendered);
  const caBundle = (await readFile(cluster.plane.pki.ca)).toString("base64");
  const url = `https://127.0.0.1:${port}/evictions/${TOKEN}`;
  return { ...rest, webhooks: webhooks.map((one) => ({ ...one, clientConfig: { url, caBundle } })) };
}

export interface Evictions {
  kubectl: Kubectl;
  /** Asks for an eviction; what the API server says. `options` are its deleteOptions. */
  evict(pod: string, options?: object, query?: string): Promise<string>;
  webhook: Webhook;
  stop(): Promise<void>;
}

/** A replica that does not lead: caches and webhook alone. The webhook is served at the API server's own address and certificate. */
export async function serveEvictions(cluster: Cluster): Promise<Evictions> {
  const ended = new AbortController();
  const client = cluster.client.with({ userAgent: "drover-webhook" });
  const caches = makeCaches(client, { namespace: "drover-system", networkIndexes: {}, logger: silentLogger });
  await startCaches(caches, ended.signal);
  const files = certificateFiles(cluster.plane.pki, "apiserver");
  const [cert, key] = await Promise.all([readFile(files.cert, "utf8"), readFile(files.key, "utf8")]);
  const made = { cert, key, token: TOKEN };
  const ctx = { client, caches, log: silentLogger, now: () => realClock.now(), deadlineMs: 60_000 };
  const webhook = await serveWebhook(async () => made, 0, ctx);
  const kubectl = kubectlFor(cluster.plane.kubeconfig);
  await kubectl.accepted(["apply", "-f", "-"], JSON.parse(JSON.stringify(await webhookConfiguration(cluster, webhook.port))));
  const evict: Evictions["evict"] = async (pod, options, query = "") => {
    const eviction = {
      apiVersion: "policy/v1",
      kind: "Eviction",
      metadata: { name: pod, namespace: NAMESPACE },
      ...(options === undefined ? {} : { deleteOptions: options }),
    };
    const url = `/api/v1/namespaces/${NAMESPACE}/pods/${pod}/eviction${query}`;
    const args = ["create", "--raw", url, "-f", "-"];
    const input = JSON.parse(JSON.stringify(eviction)) as Parameters<Kubectl["accepted"]>[1];
    return kubectl.accepted(args, input).then(
      () => "evicted",
      (error: unknown) => String(error),
    );
  };
  const stop = async (): Promise<void> => {
    ended.abort();
    await webhook.close();
  };
  return { kubectl, evict, webhook, stop };
}
