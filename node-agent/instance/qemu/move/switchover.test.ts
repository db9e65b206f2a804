import { expect, test } from "vitest";
import { FakeClock } from "../../../../kube/clock.ts";
import { silentLogger } from "../../../../kube/logger.ts";
import type { QmpSession } from "../qmp/session.ts";
import { MoveEvents } from "./events.ts";
import { Outgoing } from "./outgoing.ts";
import { Marks, type MoveParts } from "./parts.ts";
import { Switchover } from "./switchover.ts";

const MIB = 2 ** 20;

/** A QEMU of which only the counters are real; `left` is what each look finds. */
function setUp(left: () => number) {
  const clock = new FakeClock();
  const asked: string[] = [];
  const answers: { [command: string]: () => unknown } = {
    "query-migrate": () => ({
      status: "active",
      ram: {
        transferred: clock.monotonic() * 1024,
        remaining: left() * MIB,
        total: 256 * MIB,
        normal: 0,
        duplicate: 65_000,
        "dirty-sync-count": 2 + clock.monotonic(),
        "page-size": 4096,
      },
    }),
    "query-block-jobs": () => [],
  };
  const session = {
    execute: (command: string) => {
      asked.push(command);
      return Promise.resolve((answers[command] ?? (() => ({})))());
    },
  };
  const context = { clock, log: silentLogger, monitors: { session: () => Promise.resolve(session as unknown as QmpSession) } };
  const parts: MoveParts = {
    context: context as unknown as MoveParts["context"],
    events: new MoveEvents(clock),
    marks: new Marks(clock),
    tell: () => undefined,
  };
  const switchover = new Switchover(parts, new Outgoing(parts, "0ae0e6ea-5b3f-4f6b-9d0c-0e6f6d1c8d3b"));
  const count = (command: string): number => asked.filter((one) => one === command).length;
  return { clock, switchover, count };
}

test("thousands of passes a second are a few looks; the guest is stopped once", async () => {
  let left = 64;
  const { clock, switchover, count } = setUp(() => left);
  await switchover.allow(300);
  for (let ms = 0; ms < 1_000; ms++) {
    for (let pass = 0; pass < 5; pass++) switchover.onRound();
    await clock.advance(1);
  }
  expect(count("stop")).toBe(0);
  expect(count("query-migrate")).toBeGreaterThan(30);
  expect(count("query-migrate")).toBeLessThanOrEqual(1_000 / 15 + 2);
  left = 2;
  for (let ms = 0; ms < 100; ms++) {
    switchover.onRound();
    await clock.advance(1);
  }
  expect(count("stop")).toBe(1);
  switchover.close();
  expect(clock.pending).toBe(0);
});

test("an idle guest whose first pass was over empty memory is stopped once no look finds less", async () => {
  const { clock, switchover, count } = setUp(() => 2);
  await switchover.allow(300);
  for (let pass = 0; pass < 3; pass++) {
    await clock.advance(20);
    switchover.onRound();
  }
  await clock.advance(20);
  expect(count("stop")).toBe(1);
  switchover.close();
});

test("what is left becomes less within a long pass: it is looked at without another one", async () => {
  let left = 64;
  const { clock, switchover, count } = setUp(() => left);
  await switchover.allow(300);
  await clock.advance(100);
  left = 0.5;
  await clock.advance(250);
  expect(count("stop")).toBe(1);
  switchover.close();
});

test("once closed it neither looks nor stops", async () => {
  let left = 64;
  const { clock, switchover, count } = setUp(() => left);
  await switchover.allow(300);
  switchover.close();
  left = 0;
  switchover.onRound();
  await clock.advance(1_000);
  expect(count("stop")).toBe(0);
  expect(clock.pending).toBe(0);
});
