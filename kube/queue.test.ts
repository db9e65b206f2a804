import { describe, expect, it } from "vitest";
import { FakeClock } from "./clock.ts";
import { ApiError, TerminalError } from "./errors.ts";
import { KeyedQueue, type QueueOptions } from "./queue.ts";

/** A queue whose runs are recorded and end when the test says so. */
const setUp = (options: Partial<QueueOptions> = {}) => {
  const clock = new FakeClock();
  const runs: string[] = [];
  const open = new Map<string, { resolve: (value?: { afterMs: number }) => void; reject: (error: unknown) => void }>();
  let most = 0;
  const queue = new KeyedQueue({
    name: "test",
    workers: 2,
    clock,
    random: () => 1,
    backoff: { baseMs: 100, capMs: 1_000 },
    run: (key) => {
      runs.push(key);
      return new Promise((resolve, reject) => {
        if (open.has(key)) throw new Error(`${key} runs twice at a time`);
        open.set(key, {
          resolve: (value) => {
            open.delete(key);
            resolve(value);
          },
          reject: (error) => {
            open.delete(key);
            reject(error);
          },
        });
        most = Math.max(most, open.size);
      });
    },
    ...options,
  });
  const stop = new AbortController();
  const stopped = queue.start(stop.signal);
  const tick = (): Promise<void> => clock.advance(0);
  const end = async (key: string, value?: { afterMs: number }): Promise<void> => {
    open.get(key)?.resolve(value);
    await tick();
  };
  const fail = async (key: string, error: unknown = new Error("no")): Promise<void> => {
    open.get(key)?.reject(error);
    await tick();
  };
  return { clock, runs, queue, stop, stopped, tick, end, fail, most: () => most, isOpen: (key: string) => open.has(key) };
};

describe("order and duplicates", () => {
  it("runs a key once however often it is added before", async () => {
    const { queue, runs, end } = setUp({ workers: 1 });
    for (const key of ["a", "b", "b", "a", "b"]) queue.add(key);
    await end("a");
    await end("b");
    // a was running when it was added again: that change it may not have seen.
    expect(runs).toEqual(["a", "b", "a"]);
  });

  it("never runs a key twice at a time, and runs it again when it was added meanwhile", async () => {
    const { queue, runs, end, most } = setUp({ workers: 8 });
    queue.add("a");
    queue.add("a");
    queue.add("a");
    expect(runs).toEqual(["a"]);
    await end("a");
    expect(runs).toEqual(["a", "a"]);
    await end("a");
    expect(runs).toEqual(["a", "a"]);
    expect(most()).toBe(1);
  });

  it("runs at most as many keys at a time as it has workers, first come first served", async () => {
    const { queue, runs, end, most } = setUp({ workers: 2 });
    for (const key of ["a", "b", "c", "d"]) queue.add(key);
    expect(runs).toEqual(["a", "b"]);
    await end("b");
    expect(runs).toEqual(["a", "b", "c"]);
    expect(most()).toBe(2);
  });
});

describe("failures", () => {
  it("comes back after a wait that doubles up to a limit, and begins anew after a success", async () => {
    const { queue, clock, fail, end } = setUp();
    const waits: (number | undefined)[] = [];
    queue.add("a");
    for (let failure = 0; failure < 6; failure++) {
      await fail("a");
      waits.push(clock.nextInMs);
      await clock.advance(clock.nextInMs ?? 0);
    }
    await end("a");
    queue.add("a");
    await fail("a");
    waits.push(clock.nextInMs);
    expect(waits).toEqual([100, 200, 400, 800, 1_000, 1_000, 100]);
  });

  it("waits at least as long as the server asked for", async () => {
    const { queue, clock, fail } = setUp();
    queue.add("a");
    await fail("a", new ApiError(429, "TooManyRequests", "slow down", { retryAfterMs: 5_000 }));
    expect(clock.nextInMs).toBe(5_000);
  });

  it("leaves a key alone after TerminalError until it is added again", async () => {
    const { queue, clock, runs, fail } = setUp();
    queue.add("a");
    await fail("a", new TerminalError("bad spec"));
    await clock.advance(3_600_000);
    expect(runs).toEqual(["a"]);
    queue.add("a");
    expect(runs).toEqual(["a", "a"]);
  });

  it("a change overtakes the wait, and the wait is not run as well", async () => {
    const { queue, clock, runs, fail, end } = setUp();
    queue.add("a");
    await fail("a");
    queue.add("a");
    expect(runs).toEqual(["a", "a"]);
    await end("a");
    await clock.advance(10_000);
    expect(runs).toEqual(["a", "a"]);
  });

  it("a reconcile that throws before its first await is a failure like any other", async () => {
    const clock = new FakeClock();
    const queue = new KeyedQueue({
      name: "test",
      workers: 1,
      clock,
      run: () => {
        throw new Error("at once");
      },
    });
    void queue.start(new AbortController().signal);
    queue.add("a");
    await clock.advance(0);
    expect(queue.failuresOf("a")).toBe(1);
  });
});

describe("requeue", () => {
  it("looks again after the time asked for", async () => {
    const { queue, clock, runs, end } = setUp();
    queue.add("a");
    await end("a", { afterMs: 500 });
    await clock.advance(499);
    expect(runs).toEqual(["a"]);
    await clock.advance(1);
    expect(runs).toEqual(["a", "a"]);
  });

  it("the sooner of two times counts", async () => {
    const { queue, clock, runs } = setUp();
    queue.addAfter("a", 500);
    queue.addAfter("a", 100);
    queue.addAfter("a", 300);
    await clock.advance(100);
    expect(runs).toEqual(["a"]);
  });
});

describe("the end", () => {
  it("starts nothing more, and resolves when what runs has ended", async () => {
    const { queue, runs, stop, stopped, end, isOpen } = setUp({ workers: 1 });
    queue.add("a");
    queue.add("b");
    queue.addAfter("c", 10);
    stop.abort();
    let done = false;
    const watching = stopped.then(() => {
      done = true;
    });
    queue.add("d");
    expect(isOpen("a")).toBe(true);
    expect(done).toBe(false);
    await end("a");
    await watching;
    expect(runs).toEqual(["a"]);
    expect(queue.depth).toBe(0);
  });

  it("resolves at once when nothing runs", async () => {
    const { stop, stopped } = setUp();
    stop.abort();
    await expect(stopped).resolves.toBeUndefined();
  });
});
