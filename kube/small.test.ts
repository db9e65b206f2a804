import { describe, expect, it } from "vitest";
import { backoffMs } from "./backoff.ts";
import { FakeClock, sleep } from "./clock.ts";
import { findCondition, isTrue, sameStatus, setCondition } from "./conditions.ts";
import { ApiError, apiErrorFrom, errorText } from "./errors.ts";
import { keyOf, keyText, ownerKeys, parseKey } from "./keys.ts";
import { resourcePath, resources } from "./resources.ts";
import type { Condition, KubeObject } from "./types.ts";

describe("backoff", () => {
  it.each([
    [1, 0, 100],
    [1, 1, 200],
    [4, 1, 1_600],
    [60, 1, 60_000],
    [5_000, 0, 30_000],
  ])("after %i failures with chance %d waits %i ms", (failures, chance, ms) =>
    expect(backoffMs(failures, { baseMs: 200, capMs: 60_000 }, () => chance)).toBe(ms),
  );
});

describe("conditions", () => {
  const t0 = new Date("2026-01-01T00:00:00.123Z");
  const t1 = new Date("2026-01-01T00:01:00Z");
  const ready = { type: "Ready", status: "False", reason: "Starting", message: "it starts" } as const;
  const first = setCondition(undefined, ready, t0);

  it("begins with whole seconds", () => expect(first).toEqual([{ ...ready, lastTransitionTime: "2026-01-01T00:00:00Z" }]));
  it("keeps the time while the status stays", () => {
    const next = setCondition(first, { ...ready, reason: "Booting" }, t1);
    expect(next[0]).toMatchObject({ reason: "Booting", lastTransitionTime: "2026-01-01T00:00:00Z" });
  });
  it("moves the time when the status changes, and keeps places", () => {
    const other: Condition = { ...ready, type: "Other", lastTransitionTime: "x" };
    const next = setCondition([...first, other], { ...ready, status: "True" }, t1);
    expect(next.map((one) => [one.type, one.lastTransitionTime])).toEqual([
      ["Ready", "2026-01-01T00:01:00Z"],
      ["Other", "x"],
    ]);
  });
  it("the same again is the same", () => expect(sameStatus(setCondition(first, ready, t1), first)).toBe(true));
  it("does not change its input", () => expect(first).toHaveLength(1));
  it("finds and judges", () => {
    expect(findCondition(first, "Ready")?.reason).toBe("Starting");
    expect(isTrue(first, "Ready")).toBe(false);
  });
});

describe.each<[unknown, unknown, boolean]>([
  [{ a: 1, b: undefined }, { a: 1 }, true],
  [{ a: [1, { b: 2 }] }, { a: [1, { b: 2 }] }, true],
  [{ a: 1 }, { a: 2 }, false],
  [undefined, undefined, true],
  [undefined, {}, false],
  [{ a: 1, b: 2 }, { b: 2, a: 1 }, true],
])("sameStatus(%j, %j)", (a, b, same) => {
  it(`is ${same}`, () => expect(sameStatus(a, b)).toBe(same));
});

describe("keys", () => {
  it.each([[{ namespace: "ns", name: "a" }, "ns/a"] as const, [{ name: "a" }, "a"] as const])("%j <-> %s", (key, text) => {
    expect(keyText(key)).toBe(text);
    expect(parseKey(text)).toEqual(key);
    expect(keyOf({ metadata: { ...key } })).toEqual(key);
  });
  const owned = (...owners: [kind: string, name: string, controller: boolean][]): KubeObject => ({
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      namespace: "ns",
      name: "p",
      ownerReferences: owners.map(([kind, name, controller]) => ({ apiVersion: "x", kind, name, uid: "u", controller })),
    },
  });
  it("maps to the controlling owner of the kind, before and after", () => {
    const map = ownerKeys("Instance");
    const key = { namespace: "ns", name: "p" };
    expect(map({ key, now: owned(["Instance", "a", true]) })).toEqual([{ namespace: "ns", name: "a" }]);
    expect(map({ key, old: owned(["Instance", "a", true]), now: owned(["Instance", "b", true]) })).toHaveLength(2);
    expect(map({ key, now: owned(["Instance", "a", false], ["Job", "j", true]) })).toEqual([]);
  });
});

describe("paths", () => {
  it.each([
    [resources.pods, { namespace: "ns", name: "a" }, undefined, "/api/v1/namespaces/ns/pods/a"],
    [resources.pods, {}, undefined, "/api/v1/pods"],
    [resources.leases, { namespace: "ns", name: "a" }, "status", "/apis/coordination.k8s.io/v1/namespaces/ns/leases/a/status"],
    [resources.nodes, { name: "a/b" }, undefined, "/api/v1/nodes/a%2Fb"],
  ])("%o %j", (type, key, sub, path) => expect(resourcePath(type, key, sub)).toBe(path));
  it("wants a namespace", () => expect(() => resourcePath(resources.pods, { name: "a" })).toThrow("Pod a needs a namespace"));
});

describe("errors", () => {
  it("keep the server's words", () => {
    const error = apiErrorFrom(
      "get Pod a",
      429,
      JSON.stringify({ reason: "TooManyRequests", message: "too many", details: { retryAfterSeconds: 3 } }),
    );
    expect(error).toMatchObject({ code: 429, reason: "TooManyRequests", message: "get Pod a: too many", retryAfterMs: 3_000 });
  });
  it("show what a proxy said instead", () =>
    expect(apiErrorFrom("get", 502, "<h1>Bad Gateway</h1>", "2")).toMatchObject({
      message: "get: <h1>Bad Gateway</h1>",
      retryAfterMs: 2_000,
    }));
  it("are one line with their causes", () => {
    expect(errorText(new Error("outer", { cause: new Error("inner", { cause: "deep" }) }))).toBe("outer: inner: deep");
    expect(errorText(new ApiError(404, "NotFound", "no pod"))).toBe("no pod");
  });
});

describe("the clock that stands still", () => {
  it("runs timers in the order of their time, and those they start", async () => {
    const clock = new FakeClock(0);
    const seen: string[] = [];
    clock.setTimeout(() => seen.push(`b${clock.now()}`), 20);
    clock.setTimeout(() => {
      seen.push(`a${clock.now()}`);
      clock.setTimeout(() => seen.push(`c${clock.now()}`), 5);
    }, 10);
    await clock.advance(30);
    expect(seen).toEqual(["a10", "c15", "b20"]);
  });
  it("a set wall clock moves no timer", async () => {
    const clock = new FakeClock(0);
    let done = false;
    const sleeping = sleep(clock, 100).then(() => {
      done = true;
    });
    clock.setWall(1_000_000);
    await clock.advance(99);
    expect(done).toBe(false);
    await clock.advance(1);
    await sleeping;
    expect(clock.now()).toBe(1_000_100);
  });
  it("sleep ends with its signal and leaves no timer", async () => {
    const clock = new FakeClock();
    const stop = new AbortController();
    const sleeping = sleep(clock, 100, stop.signal);
    stop.abort();
    await sleeping;
    expect(clock.pending).toBe(0);
  });
});
