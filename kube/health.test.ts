import { Counter, Registry } from "prom-client";
import { afterEach, describe, expect, it } from "vitest";
import { serveHealth, type HealthServer } from "./health.ts";

let server: HealthServer | undefined;
afterEach(() => server?.close());

const start = async (ready: () => boolean | string, live: () => boolean | string = () => true): Promise<string> => {
  const registry = new Registry();
  new Counter({ name: "sheep_total", help: "sheep", registers: [registry] }).inc(3);
  server = await serveHealth({ port: 0, host: "127.0.0.1", ready, live, registry });
  return `http://127.0.0.1:${server.port}`;
};

describe("health", () => {
  it.each<[string, () => boolean | string, number, string]>([
    ["well", () => true, 200, "ok\n"],
    ["not", () => false, 503, "not ok\n"],
    ["why", () => "caches not synced", 503, "caches not synced\n"],
    [
      "a check that throws",
      () => {
        throw new Error("boom");
      },
      503,
      "boom\n",
    ],
  ])("%s", async (_, ready, status, text) => {
    const answer = await fetch(`${await start(ready)}/readyz`);
    expect([answer.status, await answer.text()]).toEqual([status, text]);
  });

  it("live is asked apart from ready", async () => expect((await fetch(`${await start(() => false)}/healthz`)).status).toBe(200));

  it.each(["gzip", "identity"])("metrics, %s", async (encoding) => {
    const answer = await fetch(`${await start(() => true)}/metrics`, { headers: { "Accept-Encoding": encoding } });
    expect(answer.headers.get("content-encoding")).toBe(encoding === "gzip" ? "gzip" : null);
    expect(await answer.text()).toContain("sheep_total 3");
  });

  it("nothing else", async () => {
    const url = await start(() => true);
    expect((await fetch(`${url}/x`)).status).toBe(404);
    expect((await fetch(`${url}/metrics`, { method: "POST" })).status).toBe(405);
  });

  it("a port that is taken is told", async () => {
    const port = Number(new URL(await start(() => true)).port);
    await expect(
      serveHealth({ port, host: "127.0.0.1", ready: () => true, live: () => true, registry: new Registry() }),
    ).rejects.toThrow("choose another port");
  });
});
