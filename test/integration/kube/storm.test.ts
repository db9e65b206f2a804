/** Many writers on the same objects, against a real API server. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  ApiError,
  Controller,
  Informer,
  KubeClient,
  ensureFinalizer,
  removeFinalizer,
  resources,
  type ConfigMap,
} from "../../../kube/index.ts";
import { configMap, eventually, put, remove, restartApiServer, startWorld, type World } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.plane.stop());

const key = (name: string) => ({ namespace: "default", name });
const get = async (name: string): Promise<ConfigMap> => {
  const found = await world.client.get(resources.configMaps, key(name));
  if (!found) throw new Error(`config map ${name} is gone`);
  return found;
};

/** A client that counts conflicts. */
const counting = () => {
  const client = KubeClient.fromKubeconfig(world.kubeconfig);
  const counts = { conflicts: 0 };
  const count = (error: unknown): never => {
    if (error instanceof ApiError && error.isConflict) counts.conflicts++;
    throw error;
  };
  const [replace, patchMerge] = [client.replace.bind(client), client.patchMerge.bind(client)];
  client.replace = ((...args: Parameters<typeof replace>) => replace(...args).catch(count)) as typeof client.replace;
  client.patchMerge = ((...args: Parameters<typeof patchMerge>) => patchMerge(...args).catch(count)) as typeof client.patchMerge;
  return { client, counts };
};

describe("conflict storms", () => {
  it("ten controllers count up the same objects by compare-and-set: every count is there, none twice", async () => {
    const objects = ["c0", "c1", "c2"];
    for (const name of objects) await put(world.client, name, "0");
    const stop = new AbortController();
    const { client, counts } = counting();
    const informer = new Informer(client, resources.configMaps, { namespace: "default" });
    informer.start(stop.signal);
    const running = Array.from({ length: 10 }, (_, n) => {
      const done = new Set<string>();
      const controller = new Controller({
        name: `writer-${n}`,
        backoff: { baseMs: 5, capMs: 200 },
        // Each counts each object up once, from what its cache shows: often stale, then the server refuses.
        reconcile: async ({ name }) => {
          const seen = informer.get(key(name));
          if (!seen || done.has(name) || !objects.includes(name)) return;
          await client.replace(resources.configMaps, { ...seen, data: { value: String(Number(seen.data?.["value"]) + 1) } });
          done.add(name);
        },
      }).watch(informer);
      return controller.start(stop.signal);
    });
    await eventually(async () => {
      for (const name of objects) expect((await get(name)).data?.["value"]).toBe("10");
    });
    stop.abort();
    await Promise.all(running);
    expect(counts.conflicts).toBeGreaterThan(10);
  });

  it("eight finalizers are set and removed at once on one object: none is lost, none of others' is touched", async () => {
    await world.client.create(resources.configMaps, {
      ...configMap("f"),
      metadata: { ...key("f"), finalizers: ["example.com/theirs"] },
    });
    const { client, counts } = counting();
    const names = Array.from({ length: 8 }, (_, n) => `example.com/f${n}`);
    const before = await get("f");
    const retry = async (work: () => Promise<unknown>): Promise<void> => {
      await eventually(work);
    };
    await Promise.all(names.map((name) => retry(() => ensureFinalizer(client, resources.configMaps, before, name))));
    expect((await get("f")).metadata.finalizers?.toSorted()).toEqual([...names, "example.com/theirs"].toSorted());
    await remove(world.client, "f");
    const deleting = await get("f");
    await Promise.all(names.map((name) => retry(() => removeFinalizer(client, resources.configMaps, deleting, name))));
    expect((await get("f")).metadata.finalizers).toEqual(["example.com/theirs"]);
    await removeFinalizer(client, resources.configMaps, deleting, "example.com/theirs");
    expect(await world.client.get(resources.configMaps, key("f"))).toBeUndefined();
    // Once more, of an object that is gone: nothing to do.
    await removeFinalizer(client, resources.configMaps, deleting, names[0] ?? "");
    expect(counts.conflicts).toBeGreaterThan(4);
  });
});

describe("one writer per field", () => {
  it("two managers keep their own fields; what one leaves out is gone, what is another's is refused without force", async () => {
    const write = (manager: string, data: Record<string, string>, force = true) =>
      world.client.apply(resources.configMaps, configMap("s", data), { manager, force });
    await write("one", { a: "1", b: "1" });
    await write("two", { c: "2" });
    expect((await write("one", { a: "1" })).data).toEqual({ a: "1", c: "2" });
    await expect(write("two", { a: "2", c: "2" }, false)).rejects.toMatchObject({
      isConflict: true,
      message: expect.stringContaining('conflict with "one"'),
    });
    expect((await write("two", { a: "2", c: "2" })).data).toEqual({ a: "2", c: "2" });
  });

  it("applying the same again writes nothing", async () => {
    const first = await put(world.client, "same", "1");
    expect((await put(world.client, "same", "1")).metadata.resourceVersion).toBe(first.metadata.resourceVersion);
  });

  it("a JSON patch whose test fails changes nothing", async () => {
    await put(world.client, "j", "1");
    const set = (from: string, to: string) =>
      world.client.patchJson(resources.configMaps, key("j"), [
        { op: "test", path: "/data/value", value: from },
        { op: "replace", path: "/data/value", value: to },
      ]);
    await set("1", "2");
    await expect(set("1", "3")).rejects.toMatchObject({ code: 422 });
    expect((await get("j")).data?.["value"]).toBe("2");
  });

  it("delete means that very object", async () => {
    const first = await put(world.client, "d", "1");
    await remove(world.client, "d");
    await put(world.client, "d", "2");
    expect(await world.client.delete(resources.configMaps, key("d"), { uid: first.metadata.uid ?? "" })).toBe(false);
    expect((await get("d")).data?.["value"]).toBe("2");
  });
});

describe("a controller over an outage", () => {
  it("keeps trying while the API server is away and is right again afterwards", async () => {
    const stop = new AbortController();
    const informer = new Informer(world.client, resources.configMaps, { namespace: "default" });
    let failures = 0;
    const copies = new Controller({
      name: "copies",
      backoff: { baseMs: 50, capMs: 500 },
      reconcile: async ({ name }) => {
        if (!name.startsWith("source-")) return;
        const value = informer.get(key(name))?.data?.["value"];
        if (value === undefined) return;
        await put(world.client, name.replace("source-", "copy-"), value).catch((error: unknown) => {
          failures++;
          throw error;
        });
      },
    }).watch(informer);
    informer.start(stop.signal);
    const stopped = copies.start(stop.signal);
    await informer.synced;
    await world.plane.kill("kube-apiserver");
    // Work that comes while it is away.
    await put(world.client, "source-a", "1").catch(() => undefined);
    copies.enqueue(key("source-a"));
    await world.plane.restart("kube-apiserver");
    await put(world.client, "source-a", "1");
    await eventually(async () => expect((await get("copy-a")).data?.["value"]).toBe("1"));
    // And while its requests fail in the middle of the work.
    await put(world.client, "source-b", "1");
    await eventually(async () => expect((await get("copy-b")).data?.["value"]).toBe("1"));
    await world.plane.kill("kube-apiserver");
    copies.enqueue(key("source-b"));
    await eventually(() => expect(failures).toBeGreaterThan(1));
    await restartApiServer(world);
    await remove(world.client, "copy-b");
    copies.enqueue(key("source-b"));
    await eventually(async () => expect((await get("copy-b")).data?.["value"]).toBe("1"));
    stop.abort();
    await stopped;
  });
});
