/** The informer against a real API server on its bad days. Each test asserts by a counter that the bad day really came. */
import { readFile } from "node:fs/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Informer, KubeClient, resources, type ConfigMap, type InformerOptions } from "../../../kube/index.ts";
import { FaultyProxy } from "./proxy.ts";
import {
  compact,
  configMap,
  eventually,
  put,
  record,
  remove,
  restartApiServer,
  startWorld,
  throughPort,
  type World,
} from "./world.ts";

let world: World;
let stop: AbortController;
let proxy: FaultyProxy;

beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.plane.stop());

beforeEach(async () => {
  stop = new AbortController();
  proxy = await FaultyProxy.to(world.plane.place.ports.apiserver);
});
afterEach(async () => {
  stop.abort();
  await proxy.close();
  for (const one of await world.client.list(resources.configMaps, { namespace: "default" }))
    await remove(world.client, one.metadata.name);
});

/** An informer of config maps in `default`, through the proxy. */
const begin = async (options: Partial<InformerOptions<ConfigMap>> = {}) => {
  const client = KubeClient.fromKubeconfig(throughPort(world.kubeconfig, proxy.port), { deadlineMs: 5_000 });
  const informer = new Informer(client, resources.configMaps, {
    namespace: "default",
    fieldSelector: "metadata.name!=kube-root-ca.crt",
    backoff: { baseMs: 20, capMs: 500 },
    ...options,
  });
  const lines = record(informer);
  informer.start(stop.signal);
  await informer.synced;
  return { informer, lines, client };
};

/** A change that comes last; when it is seen, everything before it was. */
const untilSeen = (lines: string[], line: string, ms?: number) => eventually(() => expect(lines).toContain(line), ms);

describe("a good day", () => {
  it("reads a list in pages and follows every change", async () => {
    for (let n = 0; n < 7; n++) await put(world.client, `m${n}`, "1");
    const pages: number[] = [];
    await world.client.listPages(resources.configMaps, { namespace: "default" }, (page) => void pages.push(page.items.length), {
      restart: () => undefined,
      pageSize: 3,
    });
    expect(pages).toEqual([3, 3, 1]);
    const { informer, lines } = await begin({ pageSize: 3, indexes: { value: (one) => [one.data?.["value"] ?? ""] } });
    await put(world.client, "m0", "2");
    await remove(world.client, "m1");
    await untilSeen(lines, "m1: 1 -> -");
    expect(lines.slice(7)).toEqual(["m0: 1 -> 2", "m1: 1 -> -"]);
    expect(informer.byIndex("value", "2").map((one) => one.metadata.name)).toEqual(["m0"]);
    expect(informer.list().every((one) => !("managedFields" in one.metadata))).toBe(true);
    expect(informer.counters).toMatchObject({ lists: 1, watches: 1, failures: 0 });
  });

  it("a field selector that stops matching is a deletion", async () => {
    const { informer, lines } = await begin({ labelSelector: "keep=yes" });
    await world.client.create(resources.configMaps, {
      ...configMap("a", { value: "1" }),
      metadata: { namespace: "default", name: "a", labels: { keep: "yes" } },
    });
    await untilSeen(lines, "a: - -> 1");
    await world.client.patchMerge(
      resources.configMaps,
      { namespace: "default", name: "a" },
      { metadata: { labels: { keep: "no" } } },
    );
    await untilSeen(lines, "a: 1 -> -");
    expect(informer.list()).toEqual([]);
  });
});

describe("a bad day", () => {
  it("the API server is killed and started again", async () => {
    const { informer, lines } = await begin();
    await put(world.client, "a", "before");
    await untilSeen(lines, "a: - -> before");
    await restartApiServer(world);
    await put(world.client, "a", "after");
    await untilSeen(lines, "a: before -> after");
    // The connection really broke; the change was told once.
    expect(informer.counters.failures).toBeGreaterThanOrEqual(1);
    expect(informer.counters.watches).toBeGreaterThanOrEqual(2);
    expect(lines).toEqual(["a: - -> before", "a: before -> after"]);
    expect(informer.lastEventAgeMs()).toBeLessThan(20_000);
  });

  it("the API server is frozen: requests end by their deadline, and nothing is lost when it thaws", async () => {
    const { informer, lines, client } = await begin();
    await put(world.client, "a", "before");
    await untilSeen(lines, "a: - -> before");
    const impatient = client.with({ deadlineMs: 1_000 });
    world.plane.signal("kube-apiserver", "SIGSTOP");
    try {
      const pid = world.plane.started["kube-apiserver"]?.pid;
      await eventually(async () => expect(await readFile(`/proc/${pid}/stat`, "utf8")).toMatch(/\) T /));
      const began = performance.now();
      const failures = await Promise.allSettled([1, 2, 3].map((n) => put(impatient, "b", `frozen ${n}`)));
      expect(failures.map((one) => one.status)).toEqual(["rejected", "rejected", "rejected"]);
      expect(performance.now() - began).toBeLessThan(4_000);
      // As long as a server that swaps or is being moved: a watch needs no deadline while its server is merely slow.
      await eventually(() => expect(informer.lastEventAgeMs()).toBeGreaterThan(30_000), 60_000);
    } finally {
      world.plane.signal("kube-apiserver", "SIGCONT");
    }
    await eventually(() => put(world.client, "a", "after"));
    await untilSeen(lines, "a: before -> after");
  });

  it("resuming from a version that etcd has compacted away: 410, then a list, and no object is taken for another", async () => {
    await put(world.client, "kept", "1");
    await put(world.client, "gone", "1");
    await put(world.client, "again", "1");
    const { informer, lines } = await begin();
    proxy.shut();
    await remove(world.client, "gone");
    await remove(world.client, "again");
    await put(world.client, "again", "2");
    await put(world.client, "new", "1");
    await compact(world);
    // Its watch cache would still remember.
    await restartApiServer(world);
    lines.length = 0;
    proxy.reopen();
    await untilSeen(lines, "new: - -> 1");
    expect(informer.counters).toMatchObject({ expired: 1, lists: 2 });
    expect(proxy.refused).toBeGreaterThanOrEqual(1);
    // `again` is two changes: the one that was is gone, another is there.
    expect(lines).toEqual(["gone: 1 -> -", "again: 1 -> -", "again: - -> 2", "new: - -> 1"]);
    // And it follows on.
    await put(world.client, "new", "2");
    await untilSeen(lines, "new: 1 -> 2");
  });

  it("a list whose rest was compacted away is begun anew", async () => {
    for (const name of ["a", "b", "c"]) await put(world.client, name, "1");
    const { client } = await begin();
    const read = client.listPage.bind(client);
    let asked = 0;
    let expired = 0;
    client.listPage = async (...args) => {
      if (++asked === 2) {
        await remove(world.client, "a");
        await put(world.client, "d", "1");
        await compact(world);
        await restartApiServer(world);
      }
      return read(...args).catch((error: unknown) => {
        if ((error as { isExpired?: boolean }).isExpired) expired++;
        throw error;
      });
    };
    const names: string[] = [];
    await client.listPages(
      resources.configMaps,
      { namespace: "default", fieldSelector: "metadata.name!=kube-root-ca.crt" },
      (page) => void names.push(...page.items.map((one) => one.metadata.name)),
      { restart: () => void names.splice(0), pageSize: 1 },
    );
    expect(names).toEqual(["b", "c", "d"]);
    expect(expired).toBe(1);
  });

  it("a watch that says nothing any more is noticed, and what it kept to itself is learnt", async () => {
    const { informer, lines } = await begin({ silenceMs: 1_500 });
    await put(world.client, "a", "1");
    await untilSeen(lines, "a: - -> 1");
    proxy.swallow();
    await put(world.client, "a", "2");
    await untilSeen(lines, "a: 1 -> 2");
    expect(proxy.swallowed).toBeGreaterThan(0);
    expect(informer.counters.silences).toBeGreaterThanOrEqual(1);
    // Learnt by resuming, not by listing all over again.
    expect(informer.counters.lists).toBe(1);
  });

  it("handlers that throw do not stop it", async () => {
    const { informer, lines } = await begin();
    informer.onChange(() => {
      throw new Error("a bug");
    });
    await put(world.client, "a", "1");
    await put(world.client, "a", "2");
    await untilSeen(lines, "a: 1 -> 2");
    expect(informer.counters.handlerErrors).toBe(2);
    expect(informer.counters.watches).toBe(1);
  });
});
