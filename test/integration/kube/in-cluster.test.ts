/** A pod's credentials against a real API server: a service account's token, replaced while the process runs. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { inClusterCredentials } from "../../../kube/credentials.ts";
import { Informer, KubeClient, resource, resources, type KubeObject } from "../../../kube/index.ts";
import { eventually, put, startWorld, type World } from "./world.ts";

let world: World;
let directory: string;
beforeAll(async () => {
  world = await startWorld();
  directory = await mkdtemp(path.join(tmpdir(), "drover-service-account-"));
});
afterAll(async () => {
  if (directory) await rm(directory, { recursive: true, force: true });
  await world?.plane.stop();
});

const token = async (name: string): Promise<string> => {
  const answer = await world.client.transport.request({
    method: "POST",
    path: `/api/v1/namespaces/default/serviceaccounts/${name}/token`,
    body: JSON.stringify({ apiVersion: "authentication.k8s.io/v1", kind: "TokenRequest", spec: { expirationSeconds: 600 } }),
    deadlineMs: 5_000,
  });
  return (JSON.parse(answer.body) as { status: { token: string } }).status.token;
};

describe("a pod's credentials", () => {
  it("a token that is refused is read again; a watch goes on with the new one", async () => {
    const serviceAccounts = resource<KubeObject>("", "v1", "serviceaccounts", "ServiceAccount");
    const rbac = "rbac.authorization.k8s.io";
    const roles = resource<KubeObject & { rules: object[] }>(rbac, "v1", "clusterroles", "ClusterRole", false);
    const bindings = resource<KubeObject & { roleRef: object; subjects: object[] }>(
      rbac,
      "v1",
      "clusterrolebindings",
      "ClusterRoleBinding",
      false,
    );
    const head = (kind: string) => ({ apiVersion: `${rbac}/v1`, kind, metadata: { name: "looks" } });
    await world.client.create(roles, {
      ...head("ClusterRole"),
      rules: [{ apiGroups: [""], resources: ["configmaps"], verbs: ["get", "list", "watch"] }],
    });
    for (const name of ["old", "new"]) {
      await world.client.create(serviceAccounts, {
        apiVersion: "v1",
        kind: "ServiceAccount",
        metadata: { namespace: "default", name },
      });
    }
    await world.client.create(bindings, {
      ...head("ClusterRoleBinding"),
      roleRef: { apiGroup: rbac, kind: "ClusterRole", name: "looks" },
      subjects: ["old", "new"].map((name) => ({ kind: "ServiceAccount", namespace: "default", name })),
    });
    await writeFile(path.join(directory, "ca.crt"), await readFile(world.plane.pki.ca));
    await writeFile(path.join(directory, "token"), await token("old"));
    const env = { KUBERNETES_SERVICE_HOST: "127.0.0.1", KUBERNETES_SERVICE_PORT: String(world.plane.place.ports.apiserver) };
    const client = new KubeClient(inClusterCredentials(env, directory), { deadlineMs: 5_000 });
    await put(world.client, "a", "1");
    const key = { namespace: "default", name: "a" };
    await eventually(async () => expect((await client.get(resources.configMaps, key))?.data).toEqual({ value: "1" }));
    // May look, may not write: the API server knows who asks.
    await expect(put(client, "a", "2")).rejects.toMatchObject({
      isForbidden: true,
      message: expect.stringContaining("system:serviceaccount:default:old"),
    });

    // The account goes, and with it the token; the kubelet puts another in its place.
    await world.client.delete(serviceAccounts, { namespace: "default", name: "old" });
    // The API server remembers for some seconds whom it has seen.
    await eventually(() => expect(client.get(resources.configMaps, key)).rejects.toMatchObject({ code: 401 }));
    const stop = new AbortController();
    const informer = new Informer(client, resources.configMaps, { namespace: "default", backoff: { baseMs: 20, capMs: 200 } });
    informer.start(stop.signal);
    await eventually(() => expect(informer.counters.failures).toBeGreaterThan(1));
    await writeFile(path.join(directory, "token"), await token("new"));
    await informer.synced;
    expect(informer.get(key)?.data).toEqual({ value: "1" });
    await expect(put(client, "a", "2")).rejects.toMatchObject({
      message: expect.stringContaining("system:serviceaccount:default:new"),
    });
    stop.abort();
    await informer.stopped();
  });

  it("a server with another CA's certificate is not spoken to", async () => {
    const other = await mkdtemp(path.join(tmpdir(), "drover-service-account-"));
    try {
      await writeFile(path.join(other, "ca.crt"), "");
      await writeFile(path.join(other, "token"), "secret-token");
      const env = { KUBERNETES_SERVICE_HOST: "127.0.0.1", KUBERNETES_SERVICE_PORT: String(world.plane.place.ports.apiserver) };
      const client = new KubeClient(inClusterCredentials(env, other), { deadlineMs: 5_000 });
      const error = await client.get(resources.nodes, { name: "x" }).catch((one: unknown) => one);
      expect(error).toMatchObject({ name: "TransportError", message: expect.stringMatching(/certificate/) });
      expect(String(error)).not.toContain("secret-token");
    } finally {
      await rm(other, { recursive: true });
    }
  });
});
