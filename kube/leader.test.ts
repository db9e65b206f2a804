import { describe, expect, it } from "vitest";
import type { Lease } from "./builtin.ts";
import { FakeClock, sleep } from "./clock.ts";
import { ApiError, TransportError } from "./errors.ts";
import { LeaderElector, type LeaseClient, type LeaderOptions } from "./leader.ts";

/** One Lease as an API server keeps it, with the bad days one wants. */
class FakeLeases {
  lease: Lease | undefined;
  writes = 0;
  /** For whom no answer comes. */
  readonly cutOff = new Set<string>();
  #version = 0;

  client(who: string): LeaseClient {
    const reach = async (): Promise<void> => {
      if (this.cutOff.has(who)) throw new TransportError("no answer");
    };
    const fake = {
      with: () => fake,
      get: async () => {
        await reach();
        return structuredClone(this.lease);
      },
      create: async (_: unknown, lease: Lease) => {
        await reach();
        if (this.lease) throw new ApiError(409, "AlreadyExists", "there");
        return this.#write(lease);
      },
      replace: async (_: unknown, lease: Lease) => {
        await reach();
        if (!this.lease) throw new ApiError(404, "NotFound", "gone");
        if (lease.metadata.resourceVersion !== this.lease.metadata.resourceVersion)
          throw new ApiError(409, "Conflict", "changed");
        return this.#write(lease);
      },
    };
    return fake as unknown as LeaseClient;
  }

  #write(lease: Lease): Lease {
    this.writes++;
    this.lease = structuredClone({
      ...lease,
      metadata: { ...lease.metadata, uid: "u", resourceVersion: String(++this.#version) },
    });
    return structuredClone(this.lease);
  }
}

/** A candidate that notes when it leads. */
const candidate = (leases: FakeLeases, identity: string, clock: FakeClock, options: Partial<LeaderOptions> = {}) => {
  const elector = new LeaderElector({
    client: leases.client(identity),
    namespace: "ns",
    name: "lease",
    identity,
    clock,
    random: () => 0,
    ...options,
  });
  const stop = new AbortController();
  const log: string[] = [];
  const note = (what: string): void => void log.push(`${what}@${clock.monotonic()}`);
  const done = elector.run(async (signal) => {
    note("leads");
    await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
    note("stops");
  }, stop.signal);
  return { elector, stop, log, done };
};

describe("one candidate", () => {
  it("makes the Lease, leads, renews, and hands it back", async () => {
    const clock = new FakeClock();
    const leases = new FakeLeases();
    const a = candidate(leases, "a", clock);
    await clock.advance(0);
    expect(a.elector.isLeading).toBe(true);
    expect(leases.lease?.spec).toMatchObject({ holderIdentity: "a", leaseDurationSeconds: 15, leaseTransitions: 0 });
    const before = leases.lease?.spec?.renewTime;
    await clock.advance(60_000);
    expect(a.log).toEqual(["leads@0"]);
    expect(leases.lease?.spec?.renewTime).not.toBe(before);
    a.stop.abort();
    await a.done;
    expect(leases.lease?.spec).toMatchObject({ holderIdentity: "", leaseDurationSeconds: 1 });
    expect(a.elector.isLeading).toBe(false);
    expect(clock.pending).toBe(0);
  });

  it("keeps renewing while what it led is still draining, and hands the Lease back only then", async () => {
    const clock = new FakeClock();
    const leases = new FakeLeases();
    const elector = new LeaderElector({
      client: leases.client("a"),
      namespace: "ns",
      name: "lease",
      identity: "a",
      clock,
      random: () => 0,
    });
    const stop = new AbortController();
    const done = elector.run(async (signal) => {
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
      await sleep(clock, 30_000);
    }, stop.signal);
    await clock.advance(5_000);
    stop.abort();
    await clock.advance(29_000);
    expect(leases.lease?.spec?.holderIdentity).toBe("a");
    // What is draining may finish what it is writing.
    expect(() => elector.assertLeading()).not.toThrow();
    await clock.advance(3_000);
    expect(() => elector.assertLeading()).toThrow("not leading");
    await done;
    expect(leases.lease?.spec?.holderIdentity).toBe("");
  });

  it("tells an error of what it led, and hands the Lease back", async () => {
    const clock = new FakeClock();
    const leases = new FakeLeases();
    const elector = new LeaderElector({ client: leases.client("a"), namespace: "ns", name: "lease", identity: "a", clock });
    const failed = elector
      .run(() => Promise.reject(new Error("a bug")), new AbortController().signal)
      .then(
        () => "no error",
        (error: Error) => error.message,
      );
    await clock.advance(10_000);
    expect(await failed).toBe("a bug");
    expect(leases.lease?.spec?.holderIdentity).toBe("");
  });

  it("refuses times that cannot be safe", () => {
    expect(() => candidate(new FakeLeases(), "a", new FakeClock(), { renewDeadlineMs: 15_000 })).toThrow(
      "renewDeadlineMs < leaseDurationMs",
    );
  });
});

describe("two candidates", () => {
  it("the second takes over at once when the first hands back", async () => {
    const clock = new FakeClock();
    const leases = new FakeLeases();
    const a = candidate(leases, "a", clock);
    await clock.advance(0);
    const b = candidate(leases, "b", clock);
    await clock.advance(30_000);
    expect(b.log).toEqual([]);
    a.stop.abort();
    await clock.advance(2_000);
    await a.done;
    expect(b.log).toEqual(["leads@32000"]);
    expect(leases.lease?.spec?.leaseTransitions).toBeGreaterThan(0);
  });

  it("a leader that is cut off stops before the other begins", async () => {
    const clock = new FakeClock();
    const leases = new FakeLeases();
    const a = candidate(leases, "a", clock);
    await clock.advance(0);
    const b = candidate(leases, "b", clock);
    await clock.advance(21_000);
    leases.cutOff.add("a");
    await clock.advance(30_000);
    const stops = Number(/stops@(\d+)/.exec(a.log.join())?.[1]);
    const leads = Number(/leads@(\d+)/.exec(b.log.join())?.[1]);
    // The last renewal was sent at 20 s.
    expect(stops).toBe(30_000);
    expect(leads).toBeGreaterThanOrEqual(35_000);
    expect(leads).toBeLessThanOrEqual(39_000);
  });

  it("a frozen leader may not write when it wakes, before any of its timers ran", async () => {
    const clock = new FakeClock();
    const leases = new FakeLeases();
    const a = candidate(leases, "a", clock);
    await clock.advance(0);
    expect(() => a.elector.assertLeading()).not.toThrow();
    clock.freeze(10_001);
    expect(a.log).toEqual(["leads@0"]);
    expect(() => a.elector.assertLeading()).toThrow("not leading ns/lease any more");
    await clock.advance(0);
    // Nobody took the Lease meanwhile, so it begins anew; what it led before was stopped first.
    expect(a.log).toEqual(["leads@0", "stops@10001", "leads@10001"]);
  });

  it("a wall clock that jumps ends no leadership and begins none", async () => {
    const clock = new FakeClock();
    const leases = new FakeLeases();
    const a = candidate(leases, "a", clock);
    await clock.advance(0);
    const b = candidate(leases, "b", clock);
    await clock.advance(10_000);
    clock.setWall(Date.UTC(2040, 0, 1));
    await clock.advance(30_000);
    clock.setWall(Date.UTC(1999, 0, 1));
    await clock.advance(30_000);
    expect([a.log, b.log]).toEqual([["leads@0"], []]);
  });

  it("a leader whose Lease was taken by force stops at its next renewal", async () => {
    const clock = new FakeClock();
    const leases = new FakeLeases();
    const a = candidate(leases, "a", clock);
    await clock.advance(0);
    const thief = leases.client("thief");
    const now = await thief.get({} as never, { name: "lease" });
    await thief.replace({} as never, { ...now, spec: { ...(now as Lease).spec, holderIdentity: "thief" } } as never);
    await clock.advance(2_000);
    expect(a.log).toEqual(["leads@0", "stops@2000"]);
    // It is a candidate again, and leads again when the thief does not renew.
    await clock.advance(20_000);
    expect(a.log).toHaveLength(3);
  });

  it("somebody who touched the Lease (labels) does not end the leadership", async () => {
    const clock = new FakeClock();
    const leases = new FakeLeases();
    const a = candidate(leases, "a", clock);
    await clock.advance(0);
    const person = leases.client("person");
    const now = (await person.get({} as never, { name: "lease" })) as Lease;
    await person.replace({} as never, { ...now, metadata: { ...now.metadata, labels: { seen: "yes" } } } as never);
    await clock.advance(30_000);
    expect(a.log).toEqual(["leads@0"]);
    expect(leases.lease?.metadata.labels).toEqual({ seen: "yes" });
  });
});
