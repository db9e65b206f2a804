import { describe, expect, test } from "vitest";
import { FakeClock } from "../../../../kube/clock.ts";
import type { QmpEvent } from "../qmp/session.ts";
import { isMigration, moveEvent, MoveEvents } from "./events.ts";

const event = (name: string, data: { [key: string]: unknown } = {}): QmpEvent => ({ name, data, at: 5 });

describe("what QEMU's events say of a move", () => {
  test.each([
    [event("STOP"), { kind: "stop", at: 5 }],
    [event("RESUME"), { kind: "resume", at: 5 }],
    [event("MIGRATION", { status: "active" }), { kind: "state" }],
    [event("MIGRATION", { status: "some-later-word" }), { kind: "state" }],
    [event("MIGRATION", { status: "pre-switchover" }), { kind: "held" }],
    [event("MIGRATION", { status: "completed" }), { kind: "complete" }],
    [event("MIGRATION", { status: "failed" }), { kind: "failed", message: "QEMU could not copy the memory" }],
    [event("BLOCK_JOB_READY", { device: "move-root" }), { kind: "disk-ready", disk: "root" }],
    [event("BLOCK_JOB_COMPLETED", { device: "move-root" }), { kind: "state" }],
    [event("BLOCK_JOB_COMPLETED", { device: "move-root", error: "EIO" }), { kind: "disk-failed", disk: "root", message: "EIO" }],
    [event("BLOCK_JOB_CANCELLED", { device: "move-d-1" }), { kind: "disk-failed", disk: "d-1", message: "cancelled" }],
    [event("BLOCK_JOB_READY", { device: "someone-elses" }), undefined],
    [event("RTC_CHANGE"), undefined],
  ])("%j", (qemu, move) => {
    expect(moveEvent(qemu)).toEqual(move);
  });
});

describe("waiting for an event", () => {
  const setUp = (): { clock: FakeClock; events: MoveEvents } => {
    const clock = new FakeClock();
    return { clock, events: new MoveEvents(clock) };
  };

  test("what came after listening began is not missed", async () => {
    const { events } = setUp();
    const { until, stop } = events.listen("g");
    events.tell("other", event("MIGRATION", { status: "failed" }));
    events.tell("g", event("MIGRATION", { status: "active" }));
    const isIt = isMigration("active");
    await expect(until(isIt, "it", {})).resolves.toMatchObject({ data: { status: "active" } });
    const later = until(isMigration("completed"), "the end", {});
    events.tell("g", event("MIGRATION", { status: "completed" }));
    await expect(later).resolves.toMatchObject({ data: { status: "completed" } });
    stop();
  });

  test("it ends with the connection, the signal or the time", async () => {
    const { clock, events } = setUp();
    const never = (): boolean => false;
    const late = events.listen("g").until(never, "late", { ms: 100 });
    const cancel = new AbortController();
    const cancelled = events.listen("g").until(never, "cancelled", { signal: cancel.signal });
    const closed = events.listen("h").until(never, "closed", {});
    const all = Promise.allSettled([late, cancelled, closed]);
    cancel.abort(new Error("given up"));
    events.tell("h", "closed");
    await clock.advance(100);
    expect((await all).map((one) => (one.status === "rejected" ? String(one.reason.message) : ""))).toEqual([
      "late: not within 100 ms",
      "given up",
      "closed: QEMU's monitor is gone",
    ]);
  });
});
