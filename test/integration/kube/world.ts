/** What the tests of the runtime share: a control plane, clients, config maps to play with, and ways to break things. */
import { readFile } from "node:fs/promises";
import { request } from "node:https";
import { vi } from "vitest";
import { etcdUrl } from "../../../hack/control-plane/etcd.ts";
import { startLocalControlPlane, type LocalControlPlane } from "../../../hack/control-plane/local.ts";
import { certificateFiles } from "../../../hack/control-plane/pki.ts";
import { KubeClient, resources, type Change, type ConfigMap, type Informer } from "../../../kube/index.ts";

export interface World {
  plane: LocalControlPlane;
  /** The administrator's kubeconfig. */
  kubeconfig: string;
  client: KubeClient;
}

export const startWorld = async (): Promise<World> => {
  const plane = await startLocalControlPlane();
  const kubeconfig = await readFile(plane.kubeconfig, "utf8");
  return { plane, kubeconfig, client: KubeClient.fromKubeconfig(kubeconfig, { deadlineMs: 5_000 }) };
};

/** The same kubeconfig by another port, such as a proxy's. */
export const throughPort = (kubeconfig: string, port: number): string =>
  kubeconfig.replace(/https:\/\/127\.0\.0\.1:\d+/, `https://127.0.0.1:${port}`);

export const configMap = (name: string, data: Record<string, string> = {}): ConfigMap => ({
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: { namespace: "default", name },
  data,
});

/** Writes data.value, whether or not the config map is there. */
export const put = (client: KubeClient, name: string, value: string): Promise<ConfigMap> =>
  client.apply(resources.configMaps, configMap(name, { value }), { manager: "test" });

export const remove = (client: KubeClient, name: string): Promise<boolean> =>
  client.delete(resources.configMaps, { namespace: "default", name });

/** Changes as lines: `name: value -> value`. */
export const record = (informer: Informer<ConfigMap>): string[] => {
  const lines: string[] = [];
  const text = (one: ConfigMap | undefined): string => (one ? (one.data?.["value"] ?? "") : "-");
  informer.onChange(({ key, old, now }: Change<ConfigMap>) => void lines.push(`${key.name}: ${text(old)} -> ${text(now)}`));
  return lines;
};

/** Waits for an expectation to hold; `ms` is how long it may take on a busy machine. */
export const eventually = <T>(check: () => T | Promise<T>, ms = 20_000): Promise<T> =>
  vi.waitFor(check, { timeout: ms, interval: 20 });

const etcdCall = async ({ plane }: World, path: string, body: object): Promise<Record<string, unknown>> => {
  const files = certificateFiles(plane.pki, "admin");
  const [ca, cert, key] = await Promise.all([plane.pki.ca, files.cert, files.key].map((file) => readFile(file)));
  return new Promise((resolve, reject) => {
    const asked = request(
      `${etcdUrl(plane.place)}${path}`,
      { method: "POST", ca, cert, key, agent: false, timeout: 10_000 },
      (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString();
          if (response.statusCode === 200) resolve(JSON.parse(text) as Record<string, unknown>);
          else reject(new Error(`etcd ${path}: ${response.statusCode} ${text}`));
        });
      },
    );
    asked.on("error", reject);
    asked.end(JSON.stringify(body));
  });
};

/** Makes etcd forget everything but the present; resolves to the revision. */
export const compact = async (world: World): Promise<number> => {
  const { header } = await etcdCall(world, "/v3/kv/range", { key: "AA==" });
  const revision = Number((header as { revision: string }).revision);
  await etcdCall(world, "/v3/kv/compaction", { revision: String(revision), physical: true });
  return revision;
};

/** Kills the API server and starts it again. */
export const restartApiServer = async ({ plane }: World): Promise<void> => {
  await plane.kill("kube-apiserver");
  await plane.restart("kube-apiserver");
};
