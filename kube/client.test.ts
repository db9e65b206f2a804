import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { KubeClient } from "./client.ts";
import { inClusterCredentials, kubeconfigCredentials } from "./credentials.ts";
import { FakeApi, pod, status } from "./fake-api.ts";
import { resources } from "./resources.ts";

let api: FakeApi;
let client: KubeClient;
const key = { namespace: "ns", name: "a" };

beforeEach(async () => {
  api = new FakeApi();
  client = await api.start();
});
afterEach(() => api.stop());

describe("answers", () => {
  it("404 is no object, other refusals are errors with the server's words", async () => {
    api.answer = () => status(404, "NotFound", "no such pod");
    expect(await client.get(resources.pods, key)).toBeUndefined();
    expect(await client.delete(resources.pods, key)).toBe(false);
    await expect(client.patchMerge(resources.pods, key, {})).rejects.toMatchObject({
      isNotFound: true,
      message: "patch Pod ns/a: no such pod",
    });
    api.answer = () => status(403, "Forbidden", "pods is forbidden");
    await expect(client.get(resources.pods, key)).rejects.toMatchObject({ isForbidden: true, reason: "Forbidden" });
  });

  it("list items get the kind that the server leaves out", async () => {
    api.answer = () => ({ body: { metadata: { resourceVersion: "1" }, items: [{ metadata: { name: "a" } }] } });
    expect(await client.list(resources.leases, { namespace: "ns" })).toEqual([
      { apiVersion: "coordination.k8s.io/v1", kind: "Lease", metadata: { name: "a" } },
    ]);
  });

  it("none in time is a TransportError", async () => {
    api.answer = () => new Promise(() => undefined);
    const hasty = client.with({ deadlineMs: 50 });
    await expect(hasty.get(resources.pods, key)).rejects.toMatchObject({
      name: "TransportError",
      message: expect.stringContaining("no answer within 50 ms"),
    });
  });

  it("a caller may stop waiting", async () => {
    api.answer = () => new Promise(() => undefined);
    const stop = new AbortController();
    const asking = client.get(resources.pods, key, stop.signal);
    stop.abort();
    await expect(asking).rejects.toThrow("stopped");
  });
});

describe("requests", () => {
  const asked = async (ask: () => Promise<unknown>): Promise<[string, unknown]> => {
    let sent: unknown;
    api.answer = (_, __, ___, body) => {
      sent = body === "" ? undefined : JSON.parse(body);
      return { body: pod("a", "u", "1") };
    };
    await ask();
    return [api.requests.at(-1) ?? "", sent];
  };
  const object = { apiVersion: "v1", kind: "Pod", metadata: key };

  it("apply forces, unless told not to", async () => {
    expect(await asked(() => client.apply(resources.pods, object, { manager: "m", subresource: "status" }))).toEqual([
      "PATCH /api/v1/namespaces/ns/pods/a/status?fieldManager=m&force=true",
      object,
    ]);
    expect((await asked(() => client.apply(resources.pods, object, { manager: "m", force: false })))[0]).toContain("force=false");
  });
  it("create goes to the collection", async () =>
    expect((await asked(() => client.create(resources.pods, object)))[0]).toBe("POST /api/v1/namespaces/ns/pods"));
  it("delete names what it means", async () =>
    expect(await asked(() => client.delete(resources.pods, key, { uid: "u", gracePeriodSeconds: 0 }))).toEqual([
      "DELETE /api/v1/namespaces/ns/pods/a",
      { apiVersion: "v1", kind: "DeleteOptions", preconditions: { uid: "u" }, gracePeriodSeconds: 0 },
    ]));
  it("another object of that name is not deleted, and that is no error", async () => {
    let there = "y";
    api.answer = (method) => (method === "DELETE" ? status(409, "Conflict", "it cannot be") : { body: pod("a", there, "2") });
    expect(await client.delete(resources.pods, key, { uid: "x" })).toBe(false);
    there = "x";
    await expect(client.delete(resources.pods, key, { uid: "x" })).rejects.toMatchObject({ isConflict: true });
  });
  it("a guard refuses writes, not reads", async () => {
    const guarded = client.with({
      guard: () => {
        throw new Error("not leading");
      },
    });
    await expect(guarded.create(resources.pods, object)).rejects.toThrow("not leading");
    await expect(guarded.delete(resources.pods, key)).rejects.toThrow("not leading");
    expect(api.requests).toEqual([]);
    await guarded.get(resources.pods, key).catch(() => undefined);
    expect(api.requests).toHaveLength(1);
  });
  it("401 is tried once more", async () => {
    let asks = 0;
    api.answer = () => (++asks === 1 ? status(401, "Unauthorized", "Unauthorized") : { body: pod("a", "u", "1") });
    await client.get(resources.pods, key);
    expect(asks).toBe(2);
    api.answer = () => status(401, "Unauthorized", "Unauthorized");
    await expect(client.get(resources.pods, key)).rejects.toMatchObject({ code: 401 });
  });
});

describe("credentials", () => {
  it("in a cluster: a token or CA that was replaced is used when the old one is refused", async () => {
    const directory = await mkdtemp(path.join(tmpdir(), "drover-sa-"));
    try {
      const write = (token: string, ca: string) =>
        Promise.all([
          writeFile(path.join(directory, "token"), `${token}\n`),
          writeFile(path.join(directory, "ca.crt"), ca),
          writeFile(path.join(directory, "namespace"), "drover"),
        ]);
      await write("one", "ca1");
      const credentials = inClusterCredentials({ KUBERNETES_SERVICE_HOST: "fd00::1", KUBERNETES_SERVICE_PORT: "443" }, directory);
      expect([credentials.server, credentials.namespace]).toEqual(["https://[fd00::1]:443", "drover"]);
      const first = await credentials.access();
      expect(first).toMatchObject({ headers: { Authorization: "Bearer one" }, tls: { ca: "ca1" } });
      await write("two", "ca2");
      expect((await credentials.access()).headers["Authorization"]).toBe("Bearer one");
      const second = await credentials.access(true);
      expect(second).toMatchObject({ headers: { Authorization: "Bearer two" }, tls: { ca: "ca2" } });
      expect(second.identity).not.toBe(first.identity);
    } finally {
      await rm(directory, { recursive: true });
    }
  });

  it("a kubeconfig: token, server, namespace", async () => {
    const credentials = kubeconfigCredentials(
      JSON.stringify({
        clusters: [{ name: "c", cluster: { server: "https://example.test:6443/" } }],
        users: [{ name: "u", user: { token: "t" } }],
        contexts: [{ name: "x", context: { cluster: "c", user: "u", namespace: "ns" } }],
        "current-context": "x",
      }),
    );
    expect([credentials.server, credentials.namespace]).toEqual(["https://example.test:6443", "ns"]);
    expect((await credentials.access()).headers).toEqual({ Authorization: "Bearer t" });
  });

  it("a kubeconfig without a cluster says what to do", () => expect(() => kubeconfigCredentials("{}")).toThrow("set KUBECONFIG"));
});
