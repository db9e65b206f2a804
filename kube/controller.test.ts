import { describe, expect, it } from "vitest";
import { FakeClock } from "./clock.ts";
import { Controller } from "./controller.ts";
import type { Informer } from "./informer.ts";
import type { Change, KubeObject, ObjectKey } from "./types.ts";

/** As much of an informer as a controller sees. */
const fakeInformer = () => {
  let markSynced: () => void = () => undefined;
  const handlers = new Set<(change: Change) => void>();
  const informer = {
    synced: new Promise<void>((resolve) => {
      markSynced = resolve;
    }),
    onChange: (handler: (change: Change) => void) => {
      handlers.add(handler);
      return () => handlers.delete(handler);
    },
  };
  return {
    informer: informer as unknown as Informer<KubeObject>,
    markSynced,
    change: (name: string, namespace = "ns") => {
      for (const handler of handlers) handler({ key: { namespace, name } });
    },
    handlers,
  };
};

const setUp = (
  reconcile: (key: ObjectKey, signal: AbortSignal) => Promise<void>,
  more: { deadlineMs?: number; drainMs?: number } = {},
) => {
  const clock = new FakeClock();
  const source = fakeInformer();
  const stop = new AbortController();
  const controller = new Controller({ name: "test", reconcile, clock, ...more }).watch(source.informer);
  return { clock, source, stop, controller };
};
const untilAbort = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));

describe("controller", () => {
  it("works only when all caches are synced, and has forgotten nothing until then", async () => {
    const seen: ObjectKey[] = [];
    const { clock, source, stop, controller } = setUp(async (key) => void seen.push(key));
    source.change("a");
    const done = controller.start(stop.signal);
    await clock.advance(1_000);
    expect(seen).toEqual([]);
    source.markSynced();
    await clock.advance(0);
    expect(seen).toEqual([{ namespace: "ns", name: "a" }]);
    stop.abort();
    await done;
    expect(source.handlers.size).toBe(0);
  });

  it("maps changes to other keys", async () => {
    const seen: string[] = [];
    const clock = new FakeClock();
    const source = fakeInformer();
    const controller = new Controller({ name: "test", clock, reconcile: async (key) => void seen.push(key.name) }).watch(
      source.informer,
      ({ key }) => [{ name: `${key.name}-1` }, { name: `${key.name}-2` }],
    );
    source.markSynced();
    void controller.start(new AbortController().signal);
    source.change("a");
    await clock.advance(0);
    expect(seen).toEqual(["a-1", "a-2"]);
  });

  it("stops before it began", async () => {
    const { stop, controller } = setUp(async () => undefined);
    const done = controller.start(stop.signal);
    stop.abort();
    await expect(done).resolves.toBeUndefined();
  });

  it("tells what runs to stop, and waits for it", async () => {
    const log: string[] = [];
    const { clock, source, stop, controller } = setUp(async (_, signal) => {
      await untilAbort(signal);
      log.push("cleaned up");
    });
    source.markSynced();
    source.change("a");
    const done = controller.start(stop.signal).then(() => log.push("stopped"));
    await clock.advance(0);
    stop.abort();
    await done;
    expect(log).toEqual(["cleaned up", "stopped"]);
    expect(clock.pending).toBe(0);
  });

  it("does not wait for ever for what does not listen", async () => {
    const { clock, source, stop, controller } = setUp(() => new Promise(() => undefined), { drainMs: 5_000 });
    source.markSynced();
    source.change("a");
    let stopped = false;
    const done = controller.start(stop.signal).then(() => {
      stopped = true;
    });
    await clock.advance(0);
    stop.abort();
    await clock.advance(4_999);
    expect(stopped).toBe(false);
    await clock.advance(1);
    await done;
  });

  it("a reconcile has a deadline", async () => {
    let reason: unknown;
    const { clock, source, controller } = setUp(
      async (_, signal) => {
        await untilAbort(signal);
        reason = signal.reason;
      },
      { deadlineMs: 1_000 },
    );
    source.markSynced();
    source.change("a");
    void controller.start(new AbortController().signal);
    await clock.advance(1_000);
    expect(reason).toMatchObject({ message: "reconcile took longer than 1000 ms" });
  });

  it("is started once", async () => {
    const { stop, controller } = setUp(async () => undefined);
    stop.abort();
    await controller.start(stop.signal);
    await expect(controller.start(stop.signal)).rejects.toThrow("started already");
  });
});
