/** What the chart does for drains: the webhook's key and address, who may note and move, and what the operator may write. */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { installChart, instance, type Installed, NAMESPACE, OPERATOR } from "./chart-kit.ts";
import type { Kubectl } from "./kubectl.ts";
import type { Json } from "./merge-patch.ts";

let installed: Installed;
let kubectl: Kubectl;
const migration = (name: string, priority?: string): Json => ({
  apiVersion: "drover.dev/v1alpha1",
  kind: "Migration",
  metadata: { name },
  spec: { instance: "shop", ...(priority === undefined ? {} : { priority }) },
});
const made = ["create", "--dry-run=server", "-f", "-"];

beforeAll(async () => {
  installed = await installChart();
  ({ kubectl } = installed);
  await kubectl.accepted(["apply", "-f", "-"], instance);
  // A policy holds a moment after it was made.
  await vi.waitFor(() => kubectl.refusal(made, migration("a", "Drain")), { timeout: 30_000, interval: 250 });
});
afterAll(() => installed?.stop());

describe("a Migration of priority Drain", () => {
  it("is made by the operator only", async () => {
    const said = await kubectl.refusal(made, migration("a", "Drain"));
    expect(said).toContain("priority Drain is for the moves that Drover makes when a node is drained");
    expect(await kubectl.accepted([...made, "--as", OPERATOR], migration("a", "Drain"))).toContain("created");
    for (const priority of ["User", "Rebalance", undefined]) {
      expect(await kubectl.accepted(made, migration("a", priority))).toContain("created");
    }
  });
});

describe("the note that a claim was asked to go", () => {
  const pod = (name: string, annotations: Json): Json => ({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, annotations },
    spec: { containers: [{ name: "a", image: "none" }] },
  });
  const note = { "drover.dev/evicted-last": "2026-06-01T12:00:00Z" };

  beforeAll(async () => {
    await kubectl.accepted(["apply", "-f", "-"], { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "default" } });
    await kubectl.accepted(["create", "-f", "-"], pod("plain", {}));
  });

  it("is written and removed by the operator only", async () => {
    const only = "note that a claim was asked to go; only Drover's operator writes them";
    expect(await kubectl.refusal(made, pod("drover-web-aaaaa", note))).toContain(only);
    const annotate = (value: string, ...more: string[]) => ["annotate", "pod", "plain", "--overwrite", value, ...more];
    for (const name of ["drover.dev/evicted-first", "drover.dev/evicted-last"]) {
      expect(await kubectl.refusal(annotate(`${name}=x`))).toContain(only);
      await kubectl.accepted(annotate(`${name}=x`, "--as", OPERATOR));
      expect(await kubectl.refusal(annotate(`${name}-`))).toContain(only);
    }
    expect(await kubectl.accepted(annotate("team=shop"))).toContain("annotated");
  });
});

describe("the webhook on evictions", () => {
  const secret = async (key: string): Promise<string> => {
    const args = [
      "get",
      "secret",
      "drover-operator-webhook",
      "-n",
      NAMESPACE,
      "-o",
      `jsonpath={.data.${key.replace(".", "\\.")}}`,
    ];
    return Buffer.from(await kubectl.accepted(args), "base64").toString("utf8");
  };
  const client = async (field: string): Promise<string> =>
    kubectl.accepted([
      "get",
      "validatingwebhookconfiguration",
      "drover-evictions",
      "-o",
      `jsonpath={.webhooks[0].clientConfig.${field}}`,
    ]);
  const keys = async () => ({
    token: await secret("token"),
    cert: await secret("tls.crt"),
    path: await client("service.path"),
    ca: await client("caBundle"),
  });

  it("has a certificate for its Service that its configuration trusts, and an address that nobody guesses", async () => {
    const { token, cert, path, ca } = await keys();
    expect(token).toMatch(/^[0-9a-z]{48}$/);
    expect(path).toBe(`/evictions/${token}`);
    const authority = new X509Certificate(Buffer.from(ca, "base64"));
    const own = new X509Certificate(cert);
    expect(own.verify(authority.publicKey)).toBe(true);
    expect(own.checkHost(`drover-operator-webhook.${NAMESPACE}.svc`)).toBeDefined();
    expect(own.checkPrivateKey(createPrivateKey(await secret("tls.key")))).toBe(true);
  });

  it("keeps all of that over an upgrade, and gets new ones when asked", async () => {
    const before = await keys();
    await installed.upgrade("logLevel=debug");
    expect(await keys()).toEqual(before);
    await installed.upgrade("webhook.renew=2027");
    const renewed = await keys();
    for (const part of ["token", "cert", "path", "ca"] as const) expect(renewed[part]).not.toBe(before[part]);
  });

  it("lets an eviction pass when nobody answers", async () => {
    const eviction = { apiVersion: "policy/v1", kind: "Eviction", metadata: { name: "drover-none", namespace: "default" } };
    const url = "/api/v1/namespaces/default/pods/drover-none/eviction";
    expect(await kubectl.refusal(["create", "--raw", url, "-f", "-"], eviction)).toContain("NotFound");
  });

  it.each([
    ["drain.deadline=soon", "drain/deadline"],
    ["drain.dedline=5m", "dedline"],
    ["webhook.port=1", "port"],
  ])("%s is refused", async (value, says) => {
    await expect(installed.render(value)).rejects.toThrow(says);
  });
});

describe("the operator", () => {
  const may = async (...args: string[]): Promise<boolean> => {
    const asked = ["auth", "can-i", ...args, "-n", "default", "--as", OPERATOR];
    return kubectl.accepted(asked).then(
      () => true,
      () => false,
    );
  };

  it("may give a quota room, and not change it", async () => {
    expect(await may("patch", "resourcequotas", "--subresource=status")).toBe(true);
    expect(await may("patch", "resourcequotas")).toBe(false);
    expect(await may("update", "resourcequotas")).toBe(false);
    expect(await may("create", "migrations.drover.dev")).toBe(true);
    expect(await may("create", "pods", "--subresource=eviction")).toBe(false);
  });
});
