import { describe, expect, it } from "vitest";
import type { KubeEvent } from "./builtin.ts";
import { FakeClock } from "./clock.ts";
import { ApiError } from "./errors.ts";
import { EventRecorder } from "./events.ts";
import type { KubeObject } from "./types.ts";

const instance = (name: string): KubeObject => ({
  apiVersion: "drover.dev/v1alpha1",
  kind: "Instance",
  metadata: { namespace: "ns", name, uid: `uid-${name}`, resourceVersion: "5" },
});

const setUp = (refuse?: () => Error | undefined) => {
  const clock = new FakeClock();
  const created: KubeEvent[] = [];
  const patched: { name: string; patch: unknown }[] = [];
  const client = {
    create: async (_: unknown, event: KubeEvent) => {
      const error = refuse?.();
      if (error) throw error;
      created.push(event);
    },
    patchMerge: async (_: unknown, key: { name: string }, patch: unknown) => {
      const error = refuse?.();
      if (error) throw error;
      patched.push({ name: key.name, patch });
    },
  };
  let serial = 0;
  const recorder = new EventRecorder(client as never, {
    controller: "drover.dev/operator",
    instance: "pod-1",
    clock,
    suffix: () => String(serial++),
  });
  return { clock, created, patched, recorder };
};

describe("events", () => {
  it("say who, about what, why and what", async () => {
    const { recorder, created, clock } = setUp();
    recorder.event(instance("a"), "Warning", "NoPool", "Schedule", "there is no pool fast");
    await clock.advance(0);
    expect(created).toEqual([
      {
        apiVersion: "events.k8s.io/v1",
        kind: "Event",
        metadata: { namespace: "ns", name: "a.0" },
        eventTime: "2026-01-01T00:00:00.000000Z",
        reportingController: "drover.dev/operator",
        reportingInstance: "pod-1",
        type: "Warning",
        reason: "NoPool",
        action: "Schedule",
        note: "there is no pool fast",
        regarding: {
          apiVersion: "drover.dev/v1alpha1",
          kind: "Instance",
          namespace: "ns",
          name: "a",
          uid: "uid-a",
          resourceVersion: "5",
        },
      },
    ]);
  });

  it("said a thousand times are one object and one more write per minute", async () => {
    const { recorder, created, patched, clock } = setUp();
    for (let time = 0; time < 1_000; time++) {
      recorder.event(instance("a"), "Warning", "NoPool", "Schedule", "there is no pool fast");
      await clock.advance(100);
    }
    await clock.advance(60_000);
    expect(created).toHaveLength(1);
    expect(patched.map(({ name }) => name)).toEqual(["a.0", "a.0"]);
    expect(patched.at(-1)?.patch).toMatchObject({ series: { count: 1_000 } });
  });

  it("a series that was over begins as a new object", async () => {
    const { recorder, created, clock } = setUp();
    recorder.event(instance("a"), "Normal", "Started", "Start", "it runs");
    await clock.advance(6 * 60_000);
    recorder.event(instance("a"), "Normal", "Started", "Start", "it runs");
    await clock.advance(0);
    expect(created.map(({ metadata }) => metadata.name)).toEqual(["a.0", "a.1"]);
  });

  it("an object that babbles is throttled, others are not", async () => {
    const { recorder, created, clock } = setUp();
    for (let time = 0; time < 100; time++) recorder.event(instance("a"), "Normal", "Tick", "Tick", `tick ${time}`);
    recorder.event(instance("b"), "Normal", "Tick", "Tick", "tick");
    await clock.advance(0);
    expect(created.filter(({ regarding }) => regarding?.name === "a")).toHaveLength(25);
    expect(created.filter(({ regarding }) => regarding?.name === "b")).toHaveLength(1);
  });

  it("what is over is forgotten, also behind an object of which something is told all the time", async () => {
    const { recorder, clock } = setUp();
    const vm = instance("vm");
    let most = 0;
    for (let move = 0; move < 200; move++) {
      const migration = instance(`move-${move}`);
      recorder.event(migration, "Normal", "Started", "Move", "it moves");
      recorder.event(vm, "Normal", "Moved", "Move", "it has moved");
      await clock.advance(60_000);
      if (move > 20) most = Math.max(most, recorder.remembered.series, recorder.remembered.objects);
    }
    expect(most).toBeLessThan(12);
  });

  it("flush writes what a series still owes", async () => {
    const { recorder, patched, clock } = setUp();
    recorder.event(instance("a"), "Normal", "Started", "Start", "it runs");
    recorder.event(instance("a"), "Normal", "Started", "Start", "it runs");
    const flushed = recorder.flush(1_000);
    await clock.advance(0);
    await flushed;
    expect(patched).toHaveLength(1);
    expect(clock.pending).toBe(0);
  });

  it("a series whose object the server forgot is written anew", async () => {
    let gone = false;
    const { recorder, created, clock } = setUp(() => {
      if (!gone) return undefined;
      gone = false;
      return new ApiError(404, "NotFound", "gone");
    });
    recorder.event(instance("a"), "Normal", "Started", "Start", "it runs");
    await clock.advance(0);
    recorder.event(instance("a"), "Normal", "Started", "Start", "it runs");
    gone = true;
    await clock.advance(60_000);
    expect(created).toHaveLength(2);
    expect(created[1]?.series?.count).toBe(2);
  });

  it("never throw, whatever the server says and whatever they are given", async () => {
    const { recorder, clock } = setUp(() => new ApiError(403, "Forbidden", "no"));
    recorder.event(instance("a"), "Normal", "Started", "Start", "it runs");
    recorder.event({} as KubeObject, "Normal", "Started", "Start", "it runs");
    await clock.advance(120_000);
    expect(clock.pending).toBe(0);
  });

  it("long notes are cut at a whole character", async () => {
    const { recorder, created, clock } = setUp();
    recorder.event(instance("a"), "Normal", "Long", "Long", "ö".repeat(2_000));
    await clock.advance(0);
    const note = created[0]?.note ?? "";
    expect(Buffer.byteLength(note)).toBeLessThanOrEqual(1_024);
    expect(note).toMatch(/^ö+\.\.\.$/);
  });
});
