import { describe, expect, test } from "vitest";
import type { GuestStatus } from "../../crds/instance.ts";
import { ApiError, FakeClock, silentLogger } from "../../kube/index.ts";
import { instance } from "./fixtures.ts";
import { urgency } from "./guest-status.ts";
import { Reporter } from "./reporter.ts";

type Apply = ConstructorParameters<typeof Reporter>[0]["client"]["apply"];

const setup = (fail: () => Error | undefined = () => undefined) => {
  const clock = new FakeClock();
  const written: GuestStatus[] = [];
  const apply = ((_type: unknown, object: { status: { guest: GuestStatus } }) => {
    const error = fail();
    if (error !== undefined) return Promise.reject(error);
    written.push(object.status.guest);
    return Promise.resolve(object);
  }) as unknown as Apply;
  const reporter = new Reporter({ client: { apply }, clock, log: silentLogger });
  return { clock, written, reporter, states: () => written.map((guest) => guest.state) };
};

const nic = (installed: boolean) => [{ name: "eth0", tap: "d1", installed }];
const runs = (over: Partial<GuestStatus> = {}): GuestStatus => ({ state: "Running", claimUid: "c", nics: nic(true), ...over });

describe("Reporter", () => {
  test("a quick start is one write", async () => {
    const { clock, reporter, written } = setup();
    reporter.say(instance(), { state: "Preparing", claimUid: "c" });
    await clock.advance(300);
    reporter.say(instance(), runs({ nics: nic(false) }));
    await clock.advance(300);
    reporter.say(instance(), runs());
    await clock.advance(10_000);
    expect(written).toEqual([runs()]);
  });

  test("what lasts is said after a second, and what follows at once", async () => {
    const { clock, reporter, states } = setup();
    reporter.say(instance(), { state: "Preparing", claimUid: "c" });
    await clock.advance(999);
    expect(states()).toEqual([]);
    await clock.advance(1);
    expect(states()).toEqual(["Preparing"]);
    reporter.say(instance(), runs());
    await clock.advance(0);
    expect(states()).toEqual(["Preparing", "Running"]);
  });

  test("a repeat is not written, nor a word that was taken back in time", async () => {
    const { clock, reporter, states } = setup();
    const before = instance({ status: { guest: runs() } });
    reporter.say(before, runs());
    reporter.say(before, { state: "Stopping", claimUid: "c" });
    await clock.advance(500);
    reporter.say(before, runs());
    await clock.advance(10_000);
    expect(states()).toEqual([]);
  });

  test("the guest agent's coming and going waits for five seconds and for company", async () => {
    const { clock, reporter, written } = setup();
    const before = instance({ status: { guest: runs() } });
    reporter.say(before, runs({ agentConnected: true }));
    await clock.advance(4_000);
    expect(written).toEqual([]);
    await clock.advance(1_000);
    expect(written).toEqual([runs({ agentConnected: true })]);
  });

  test("details that flap within a state are written once a second", async () => {
    const { clock, reporter, written } = setup();
    for (let i = 0; i < 40; i++) {
      reporter.say(instance(), runs({ pid: 100 + i }));
      await clock.advance(100);
    }
    expect(written.length).toBeLessThanOrEqual(5);
    await clock.advance(2_000);
    expect(written.at(-1)?.pid).toBe(139);
  });

  test("a write that fails comes again, with what is newest by then", async () => {
    let broken = true;
    const { clock, reporter, written } = setup(() => (broken ? new Error("no API server") : undefined));
    reporter.say(instance(), runs());
    await clock.advance(50);
    reporter.say(instance(), { state: "Failed", reason: "Crashed", claimUid: "c" });
    broken = false;
    await clock.advance(30_000);
    expect(written).toEqual([{ state: "Failed", reason: "Crashed", claimUid: "c" }]);
  });

  test("an instance that is gone is let go", async () => {
    const gone = new ApiError(404, "NotFound", "not found");
    const { clock, reporter, written } = setup(() => gone);
    reporter.say(instance(), runs());
    await clock.advance(60_000);
    expect(written).toEqual([]);
    expect(clock.pending).toBe(0);
  });

  test("an instance is told of once something was said of it, and the API server has it", async () => {
    let broken = true;
    const { clock, reporter } = setup(() => (broken ? new Error("no API server") : undefined));
    const told: string[] = [];
    reporter.onTold((uid) => told.push(uid));
    const before = instance({ status: { guest: runs() } });
    expect(reporter.isTold(before.metadata.uid)).toBe(false);
    reporter.say(before, runs({ pid: 2 }));
    await clock.advance(100);
    expect(told).toEqual([]);
    broken = false;
    await clock.advance(30_000);
    expect(told).toEqual([before.metadata.uid]);
    expect(reporter.isTold(before.metadata.uid)).toBe(true);
  });

  test("an instance that is as the API server has it is told of without a write", async () => {
    const { clock, reporter, written } = setup();
    const before = instance({ status: { guest: runs() } });
    reporter.say(before, runs());
    await clock.advance(10_000);
    expect(written).toEqual([]);
    expect(reporter.isTold(before.metadata.uid)).toBe(true);
  });

  test("the last words are written at the end", async () => {
    const { reporter, states } = setup();
    reporter.say(instance(), { state: "Preparing", claimUid: "c" });
    await reporter.close(1_000);
    expect(states()).toEqual(["Preparing"]);
  });
});

test.each<[GuestStatus, GuestStatus | undefined, string]>([
  [{ state: "Preparing" }, undefined, "soon"],
  [{ state: "Preparing", reason: "ChecksumMismatch" }, undefined, "now"],
  [{ state: "Stopping", reason: "PowerOff" }, runs(), "soon"],
  [runs({ nics: nic(false) }), undefined, "soon"],
  [runs(), undefined, "now"],
  [runs({ agentConnected: true }), runs(), "later"],
  [runs({ disks: { ready: false } }), runs(), "now"],
  [{ state: "Failed", reason: "MemoryLimit" }, runs(), "now"],
  [{ state: "Released" }, undefined, "now"],
])("%j after %j is worth a write %s", (next, before, when) => {
  expect(urgency(next, before)).toBe(when);
});
