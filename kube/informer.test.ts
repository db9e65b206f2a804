import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { KubeClient } from "./client.ts";
import { FakeApi, list, pod, status } from "./fake-api.ts";
import { Informer, type InformerOptions } from "./informer.ts";
import { resource } from "./resources.ts";
import type { KubeObject } from "./types.ts";

const pods = resource<KubeObject>("", "v1", "pods", "Pod");
let api: FakeApi;
let client: KubeClient;
let stop: AbortController;

beforeEach(async () => {
  api = new FakeApi();
  client = await api.start();
  stop = new AbortController();
});
afterEach(async () => {
  stop.abort();
  await api.stop();
});

/** An informer whose changes are written down as `name uid@version` -> the same. */
const begin = (options: Partial<InformerOptions<KubeObject>> = {}) => {
  const informer = new Informer(client, pods, { backoff: { baseMs: 1, capMs: 10 }, ...options });
  const changes: string[] = [];
  const text = (one: KubeObject | undefined): string => (one ? `${one.metadata.uid}@${one.metadata.resourceVersion}` : "-");
  informer.onChange(({ key, old, now }) => void changes.push(`${key.name}: ${text(old)} -> ${text(now)}`));
  informer.start(stop.signal);
  return { informer, changes };
};
const watchNumber = (n: number) =>
  vi.waitFor(() => {
    const watch = api.watches[n - 1];
    if (!watch) throw new Error(`watch ${n} is not open yet`);
    return watch;
  });

describe("list, then watch", () => {
  it("reads all pages and watches from the list's version", async () => {
    api.answer = (_, __, query) =>
      query.get("continue") === "more" ? list([pod("b", "u2", "4")], "10") : list([pod("a", "u1", "3")], "10", "more");
    const { informer, changes } = begin({ pageSize: 1 });
    await informer.synced;
    expect(changes).toEqual(["a: - -> u1@3", "b: - -> u2@4"]);
    const watch = await watchNumber(1);
    expect(Object.fromEntries(watch.query)).toMatchObject({ resourceVersion: "10", allowWatchBookmarks: "true" });
    expect(api.requests[0]).toBe("GET /api/v1/pods?limit=1");
  });

  it("begins a list anew, in one piece, when its rest is no longer kept", async () => {
    api.answer = (_, __, query) => {
      if (query.get("continue")) return status(410, "Expired", "the provided continue parameter is too old");
      return query.get("limit") === null ? list([pod("b", "u2", "20")], "20") : list([pod("a", "u1", "3")], "10", "more");
    };
    const { informer, changes } = begin({ pageSize: 1 });
    await informer.synced;
    expect(changes).toEqual(["b: - -> u2@20"]);
    expect((await watchNumber(1)).query.get("resourceVersion")).toBe("20");
  });

  it("tells what the watch tells, and the same version only once", async () => {
    const { informer, changes } = begin();
    const watch = await watchNumber(1);
    watch.send("ADDED", pod("a", "u1", "2"));
    watch.send("ADDED", pod("a", "u1", "2"));
    watch.send("MODIFIED", pod("a", "u1", "3"));
    watch.send("DELETED", pod("a", "u1", "4"));
    await vi.waitFor(() => expect(changes).toEqual(["a: - -> u1@2", "a: u1@2 -> u1@3", "a: u1@4 -> -"]));
    expect(informer.list()).toEqual([]);
  });

  it("gives selectors to list and watch alike", async () => {
    begin({ namespace: "ns", labelSelector: "a=b", fieldSelector: "spec.nodeName=n1" });
    const watch = await watchNumber(1);
    expect(Object.fromEntries(watch.query)).toMatchObject({ labelSelector: "a=b", fieldSelector: "spec.nodeName=n1" });
    expect(api.requests[0]).toBe("GET /api/v1/namespaces/ns/pods?labelSelector=a%3Db&fieldSelector=spec.nodeName%3Dn1&limit=500");
  });

  it("drops managedFields, applies the transform, keeps indexes", async () => {
    api.answer = () =>
      list(
        [
          {
            ...pod("a", "u1", "2"),
            metadata: { ...pod("a", "u1", "2").metadata, managedFields: [1], labels: { x: "y" } },
          } as KubeObject,
        ],
        "2",
      );
    const { informer } = begin({
      transform: (one) => ({ ...one, kind: "Small" }),
      indexes: { x: (one) => [one.metadata.labels?.["x"] ?? ""] },
    });
    await informer.synced;
    expect(informer.byIndex("x", "y")).toEqual([
      {
        apiVersion: "v1",
        kind: "Small",
        metadata: { namespace: "ns", name: "a", uid: "u1", resourceVersion: "2", labels: { x: "y" } },
      },
    ]);
  });
});

describe("resuming", () => {
  it("from the last event or bookmark, without a list, when the watch ends in good order or breaks", async () => {
    const { informer } = begin();
    (await watchNumber(1)).send("ADDED", pod("a", "u1", "7"));
    await vi.waitFor(() => expect(informer.list()).toHaveLength(1));
    api.watches[0]?.end();
    const second = await watchNumber(2);
    expect(second.query.get("resourceVersion")).toBe("7");
    second.send("BOOKMARK", { kind: "Pod", metadata: { resourceVersion: "99" } });
    await vi.waitFor(() => expect(informer.counters.bookmarks).toBe(1));
    second.cut();
    expect((await watchNumber(3)).query.get("resourceVersion")).toBe("99");
    expect(informer.counters.lists).toBe(1);
  });

  it("after an outage of the server, however long", async () => {
    const { informer, changes } = begin();
    await watchNumber(1);
    await api.stop();
    await vi.waitFor(() => expect(informer.counters.failures).toBeGreaterThan(8));
    await api.start();
    (await watchNumber(2)).send("ADDED", pod("a", "u1", "7"));
    await vi.waitFor(() => expect(changes).toEqual(["a: - -> u1@7"]));
    expect(informer.counters.lists).toBe(1);
  });

  it.each(["as an answer", "as an event"])("410 %s: lists anew and tells the difference", async (how) => {
    api.answer = () => list([pod("a", "u1", "2"), pod("b", "u2", "2"), pod("c", "u3", "2")], "2");
    const { informer, changes } = begin();
    const first = await watchNumber(1);
    changes.length = 0;
    api.answer = () => list([pod("a", "u1", "2"), pod("b", "u9", "8"), pod("d", "u4", "9")], "10");
    if (how === "as an event")
      first.send("ERROR", { kind: "Status", code: 410, reason: "Expired", message: "too old resource version" });
    else {
      let refused = false;
      api.refuseWatch = () => {
        if (refused) return undefined;
        refused = true;
        return status(410, "Expired", "too old resource version");
      };
      first.cut();
    }
    expect((await watchNumber(2)).query.get("resourceVersion")).toBe("10");
    // c is gone; b was deleted and made again: two changes, so that nobody takes the new one for the old.
    expect(changes).toEqual(["c: u3@2 -> -", "b: u2@2 -> -", "b: - -> u9@8", "d: - -> u4@9"]);
    expect(informer.counters).toMatchObject({ expired: 1, lists: 2 });
  });

  it("a watch that is answered badly again and again leads to a list", async () => {
    api.refuseWatch = () => status(500, "InternalError", "too large resource version");
    const { informer } = begin();
    await vi.waitFor(() => expect(informer.counters.lists).toBeGreaterThan(2));
    expect(informer.counters.watches).toBeGreaterThanOrEqual((informer.counters.lists - 1) * 3);
  });
});

describe("silence", () => {
  it("opens another watch, then lists anew", async () => {
    const { informer } = begin({ silenceMs: 40 });
    await watchNumber(2);
    expect(informer.counters.lists).toBe(1);
    await vi.waitFor(() => expect(informer.counters.lists).toBe(2));
    expect(informer.counters.silences).toBeGreaterThanOrEqual(4);
    expect(informer.lastEventAgeMs()).toBeLessThan(1_000);
  });
});

describe("code that throws", () => {
  it("handlers, transforms and index functions do not end it", async () => {
    api.answer = () => list([pod("a", "u1", "2")], "2");
    const boom = (): never => {
      throw new Error("boom");
    };
    const { informer, changes } = begin({ transform: boom, indexes: { x: boom } });
    informer.onChange(boom);
    await informer.synced;
    (await watchNumber(1)).send("ADDED", pod("b", "u2", "3"));
    await vi.waitFor(() => expect(changes).toEqual(["a: - -> u1@2", "b: - -> u2@3"]));
    expect(informer.counters.handlerErrors).toBe(6);
    expect(informer.counters.watches).toBe(1);
  });
});

describe("handlers", () => {
  it("that come late are told what is there; that leave are told nothing more", async () => {
    api.answer = () => list([pod("a", "u1", "2")], "2");
    const { informer } = begin();
    await informer.synced;
    const late: string[] = [];
    const leave = informer.onChange(({ key }) => void late.push(key.name));
    expect(late).toEqual(["a"]);
    leave();
    (await watchNumber(1)).send("ADDED", pod("b", "u2", "3"));
    await vi.waitFor(() => expect(informer.list()).toHaveLength(2));
    expect(late).toEqual(["a"]);
  });
});

describe("the end", () => {
  it("closes the watch", async () => {
    const { informer } = begin();
    await watchNumber(1);
    stop.abort();
    await informer.stopped();
    expect(informer.counters.failures).toBe(0);
  });
  it("comes also before anything answered", async () => {
    await api.stop();
    const { informer } = begin();
    stop.abort();
    await informer.stopped();
    expect(informer.hasSynced).toBe(false);
    await api.start();
  });
});
