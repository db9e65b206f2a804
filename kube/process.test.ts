import { execa } from "execa";
import { describe, expect, it } from "vitest";
import { FakeClock } from "./clock.ts";
import { rootLogger } from "./logger.ts";
import { Watchdog } from "./watchdog.ts";

describe("logs", () => {
  const print = (fields: object): Record<string, unknown> => {
    let line = "";
    rootLogger("test", { write: (text) => void (line += text) }).warn(fields, "words");
    return JSON.parse(line) as Record<string, unknown>;
  };
  it("are one JSON object with level, name and time", () => {
    expect(print({ key: { namespace: "ns", name: "a" } })).toMatchObject({
      level: "warn",
      name: "test",
      msg: "words",
      key: { namespace: "ns", name: "a" },
    });
    expect(print({})["time"]).toMatch(/^\d{4}-\d\d-\d\dT/);
  });
  it.each([
    { token: "hush" },
    { headers: { Authorization: "hush" } },
    { request: { headers: { authorization: "hush" } } },
    { secret: { data: { a: "hush" } } },
    { password: "hush" },
  ])("keep %j to themselves", (fields) => expect(JSON.stringify(print(fields))).not.toContain("hush"));
});

describe("the watchdog", () => {
  it("barks once, so long after it was fed last", async () => {
    const clock = new FakeClock();
    const barks: number[] = [];
    const dog = new Watchdog(clock, 100, () => barks.push(clock.monotonic()));
    for (let time = 0; time < 5; time++) {
      await clock.advance(60);
      dog.feed();
    }
    await clock.advance(1_000);
    expect(barks).toEqual([400]);
    expect(dog.barked).toBe(true);
  });
  it("is quiet when told to stop", async () => {
    const clock = new FakeClock();
    const dog = new Watchdog(clock, 100, () => expect.unreachable());
    dog.stop();
    await clock.advance(1_000);
    expect(clock.pending).toBe(0);
  });
});

describe("signals", () => {
  const script = `
    import { untilSignal } from "./signals.ts";
    const signal = untilSignal();
    if (untilSignal() !== signal) throw new Error("another signal");
    signal.addEventListener("abort", () => { console.log("draining"); process.kill(process.pid, "SIGTERM"); });
    process.kill(process.pid, "SIGTERM");
    setTimeout(() => console.log("not ended"), 5000);
  `;
  it("the first drains, the second ends", async () => {
    const result = await execa(process.execPath, ["--input-type=module", "--eval", script], {
      cwd: import.meta.dirname,
      timeout: 10_000,
      reject: false,
    });
    expect([result.stdout, result.exitCode]).toEqual(["draining", 143]);
  });
});
