import { expect, test } from "vitest";
import { lastPause } from "./traces.ts";

const line = (thread: number, seconds: number, running: 0 | 1): string =>
  `${thread}@${seconds.toFixed(6)}:vm_state_notify running ${running} reason 9 (any)\n`;

test("the last pause, also where another thread than the one that started the guest stops it", () => {
  const first = `${line(10, 100, 1)}${line(17, 105, 0)}`;
  const second = `${line(30, 105.25, 1)}some other words\n${line(31, 200, 0)}`;
  const third = line(10, 200.0625, 1);
  expect(lastPause([second, first])).toEqual({ from: 105_000, ms: 250 });
  expect(lastPause([third, first, second])).toEqual({ from: 200_000, ms: 62.5 });
});

test("none is an error that shows what was said", () => {
  expect(() => lastPause([line(10, 100, 1)])).toThrow("no pause");
});
