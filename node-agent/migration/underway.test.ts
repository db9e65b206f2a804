import { describe, expect, test } from "vitest";
import { FakeClock } from "../../kube/clock.ts";
import { Seen } from "./seen.ts";
import { Alarm } from "./underway.ts";

describe("an alarm", () => {
  test("rings at the earliest time that was asked for since it was cleared, once", async () => {
    const clock = new FakeClock();
    const rung: number[] = [];
    const alarm = new Alarm(clock, () => rung.push(clock.monotonic()));
    alarm.in(60);
    alarm.in(30);
    alarm.in(90);
    await clock.advance(200);
    expect(rung).toEqual([30]);
    alarm.in(50);
    alarm.clear();
    await clock.advance(100);
    alarm.in(40);
    await clock.advance(100);
    expect(rung).toEqual([30, 340]);
    expect(clock.pending).toBe(0);
  });
});

describe("what QEMU said", () => {
  test("an answer that is older than a change says nothing", async () => {
    const answers: ((state: "waiting" | "complete") => void)[] = [];
    const seen = new Seen<"waiting" | "complete" | "running">(() => new Promise((resolve) => answers.push(resolve)));
    const first = seen.look();
    seen.forget();
    answers[0]?.("waiting");
    await expect.poll(() => answers.length).toBe(2);
    answers[1]?.("complete");
    await expect(first).resolves.toBe("complete");
    await expect(seen.look()).resolves.toBe("complete");
    const third = (seen.forget(), seen.look());
    seen.set("running");
    answers[2]?.("complete");
    await expect(third).resolves.toBe("running");
    expect(answers).toHaveLength(3);
  });
});
