import { expect, it } from "vitest";
import { FakeClock } from "../../../kube/clock.ts";
import { silentLogger } from "../../../kube/logger.ts";
import { MoveMetrics } from "../metrics.ts";
import type { MoveNote } from "../notes.ts";
import { Pause } from "./pause.ts";

const NOTE = { instance: { uid: "u", name: "web" } } as MoveNote;

async function pauseMs(marks: { mark: string; ms: number }[]): Promise<number | undefined> {
  const clock = new FakeClock();
  const moves = { marks: () => [], counters: () => Promise.reject(new Error("QEMU is gone")) };
  const pause = new Pause({ moves, metrics: new MoveMetrics(), clock, log: silentLogger } as never, undefined);
  pause.allow();
  pause.stopped(clock.now());
  await clock.advance(20);
  pause.mark("go-sent");
  await clock.advance(110);
  pause.ran(marks);
  return (await pause.figures(NOTE)).pauseMs;
}

it("a pause is over when the guest runs at the target, not when that is heard of", async () => {
  expect(
    await pauseMs([
      { mark: "noted", ms: 4 },
      { mark: "resumed", ms: 9 },
    ]),
  ).toBe(29);
});

it("where the target's agent has died meanwhile, and does not know when, it is until that is heard of", async () => {
  expect(await pauseMs([])).toBe(130);
});
