import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { execa } from "execa";
import { Agent, request } from "undici";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { silentLogger } from "../../kube/index.ts";
import type { EvictionContext } from "./evictions.ts";
import { serveWebhook, webhookFiles, type Webhook } from "./webhook.ts";

let directory: string;
let webhook: Webhook;
let now = 1_000_000;

const place = async (name: string, token: string): Promise<void> => {
  const [key, cert] = [path.join(directory, "tls.key"), path.join(directory, "tls.crt")];
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  await execa("openssl", ["req", "-x509", ...curve, "-keyout", key, "-out", cert, "-days", "2", "-subj", `/CN=${name}`]);
  await writeFile(path.join(directory, "token"), `${token}\n`);
};
const ctx: EvictionContext = {
  client: {
    get: async () => undefined,
    list: async () => [],
    patchMerge: () => Promise.reject(new Error("nothing is written here")),
  },
  caches: { claims: { get: () => undefined } } as unknown as EvictionContext["caches"],
  log: silentLogger,
  now: () => now,
  deadlineMs: 1000,
};
const review = JSON.stringify({
  apiVersion: "admission.k8s.io/v1",
  kind: "AdmissionReview",
  request: {
    uid: "r1",
    operation: "CREATE",
    resource: { group: "", resource: "pods" },
    subResource: "eviction",
    name: "drover-web",
    namespace: "a",
  },
});

const ask = async (url: string, body: string, method: "POST" | "GET" = "POST"): Promise<string> => {
  const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
  try {
    const sent = method === "POST" ? { method, body } : { method };
    const answer = await request(`https://127.0.0.1:${webhook.port}${url}`, { ...sent, dispatcher });
    return `${answer.statusCode} ${await answer.body.text()}`.trim();
  } finally {
    await dispatcher.close();
  }
};
const first = "aaaaaaaaaaaaaaaaaaaaaaaa";
const second = "bbbbbbbbbbbbbbbbbbbbbbbb";

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "drover-webhook-"));
  await place("first", first);
  webhook = await serveWebhook(() => webhookFiles(directory), 0, ctx);
});
afterAll(async () => {
  await webhook?.close();
  await rm(directory, { recursive: true, force: true });
});

describe("the webhook", () => {
  it("answers who knows its address", async () => {
    const answer = await ask(`/evictions/${first}`, review);
    expect(answer).toMatch(/^200 /);
    expect(JSON.parse(answer.slice(4))).toMatchObject({ response: { uid: "r1", allowed: true } });
  });

  it.each([
    ["another address", () => ask(`/evictions/${second}`, review), "404"],
    ["another method", () => ask(`/evictions/${first}`, "", "GET"), "404"],
    ["nonsense", () => ask(`/evictions/${first}`, "{}"), "500 the eviction could not be judged"],
    ["too much", () => ask(`/evictions/${first}`, "x".repeat(300_000)), "500 the eviction could not be judged"],
  ])("%s gets nothing", async (_, asking, expected) => {
    expect(await asking()).toBe(expected);
  });

  it("takes up what was made anew, when somebody asks by it", async () => {
    await place("second", second);
    now += 500;
    expect(await ask(`/evictions/${second}`, review)).toBe("404");
    now += 1000;
    expect(await ask(`/evictions/${second}`, review)).toMatch(/^200 /);
    expect(await ask(`/evictions/${first}`, review)).toBe("404");
  });

  it("says what is missing in its directory", async () => {
    await expect(webhookFiles("/nowhere")).rejects.toThrow("is the Secret drover-operator-webhook there?");
    await writeFile(path.join(directory, "token"), "short");
    await expect(webhookFiles(directory)).rejects.toThrow("set webhook.renew");
  });
});
