import { describe, expect, it } from "vitest";
import { FakeClock } from "./clock.ts";
import { exposeInformer, registry } from "./metrics.ts";
import { KeyedQueue } from "./queue.ts";

const lines = async (start: string): Promise<string[]> =>
  (await registry.metrics()).split("\n").filter((line) => line.startsWith(start));

describe("metrics", () => {
  it("of two informers of one resource the older age and the larger cache are shown, of none nothing", async () => {
    const hide = [
      exposeInformer(() => ({ resource: "pods", size: 3, ageMs: 9_000 })),
      exposeInformer(() => ({ resource: "pods", size: 5, ageMs: 1_000 })),
    ];
    expect(await lines("kube_informer_last_event_age_seconds{")).toEqual([
      'kube_informer_last_event_age_seconds{resource="pods"} 9',
    ]);
    expect(await lines("kube_informer_objects{")).toEqual(['kube_informer_objects{resource="pods"} 5']);
    for (const one of hide) one();
    expect(await lines("kube_informer_objects{")).toEqual([]);
  });

  it("of a queue: what waits, runs, failed, and how long the oldest has run", async () => {
    const clock = new FakeClock();
    const run = (key: string): Promise<void> => (key === "bad" ? Promise.reject(new Error("no")) : new Promise(() => undefined));
    const queue = new KeyedQueue({ name: "sheep", workers: 2, clock, random: () => 1, backoff: { baseMs: 60_000 }, run });
    const stop = new AbortController();
    void queue.start(stop.signal);
    for (const key of ["bad", "slow-1", "slow-2", "waits"]) queue.add(key);
    await clock.advance(30_000);
    const value = async (name: string): Promise<string | undefined> =>
      (await lines(`${name}{controller="sheep"`)).map((line) => line.split(" ").at(-1)).join();
    expect(await value("kube_queue_running")).toBe("2");
    expect(await value("kube_queue_depth")).toBe("1");
    expect(await value("kube_queue_delayed")).toBe("1");
    expect(await value("kube_queue_adds_total")).toBe("4");
    expect(await value("kube_queue_retries_total")).toBe("1");
    expect(await value("kube_reconcile_longest_running_seconds")).toBe("30");
    expect(await lines('kube_reconcile_seconds_count{controller="sheep",result="error"}')).toHaveLength(1);
    stop.abort();
  });
});
