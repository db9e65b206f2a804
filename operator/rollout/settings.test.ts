import { expect, it } from "vitest";
import { runtimeUpdateSettings } from "./settings.ts";

it("has defaults", () =>
  expect(runtimeUpdateSettings("{}")).toEqual({ mode: "Auto", perNode: 2, perCluster: 4, maxPauseMs: 300, window: undefined }));

it("takes what the chart says", () =>
  expect(
    runtimeUpdateSettings(
      JSON.stringify({ mode: "Manual", perNode: 3, perCluster: 9, maxPause: "50ms", window: { start: "22:00", end: "04:00" } }),
    ),
  ).toEqual({ mode: "Manual", perNode: 3, perCluster: 9, maxPauseMs: 50, window: { start: 22 * 60, end: 4 * 60 } }));

it("takes an empty window as none", () =>
  expect(runtimeUpdateSettings('{"window": {"start": "", "end": ""}}').window).toBeUndefined());

it.each([
  ["nonsense", "must be JSON"],
  ['{"mode": "Always", "perNode": 0}', "mode must be Auto, Manual or Off; perNode must be at least 1"],
  ['{"perCluster": 1.5}', "perCluster must be a whole number"],
  ['{"maxPause": "soon"}', "maxPause: "],
  ['{"window": {"start": "22:00"}}', "window needs both start and end"],
])("%s is refused", (text, says) => expect(() => runtimeUpdateSettings(text)).toThrow(says));
