import { describe, expect, test } from "vitest";
import { bestCpuModel, machineTypes } from "./facts.ts";

test("machineTypes: versioned q35 only, newest first", () => {
  const names = ["pc-q35-9.2", "q35", "pc-q35-10.0", "pc-i440fx-10.0", "pc-q35-4.0.1", "pc-q35-4.0", "none", "pc-q35-2.4"];
  const all = names.map((name) => ({ name, deprecated: name === "pc-q35-2.4" }));
  expect(machineTypes(all)).toEqual(["pc-q35-10.0", "pc-q35-9.2", "pc-q35-4.0.1", "pc-q35-4.0"]);
});

const cpu = (name: string, unavailable: string[] | undefined = [], migrationSafe = true) => ({
  name,
  unavailable,
  migrationSafe,
  isAlias: false,
});

describe("bestCpuModel", () => {
  test.each([
    [
      "TCG",
      [cpu("Haswell-v4", ["pcid"]), cpu("EPYC-v1", ["nrip-save"]), cpu("Westmere-v1"), cpu("qemu64-v1"), cpu("max", [], false)],
      "Westmere-v1",
    ],
    ["a recent Intel", [cpu("Haswell-v4"), cpu("EPYC-v1", ["svm"]), cpu("Westmere-v1")], "Haswell-v4"],
    ["AMD", [cpu("Haswell-v4", ["pcid"]), cpu("EPYC-v1"), cpu("Westmere-v1")], "EPYC-v1"],
    ["what is not known is not used", [{ ...cpu("Haswell-v4"), unavailable: undefined }, cpu("qemu64-v1")], "qemu64-v1"],
    ["nothing usable", [cpu("Haswell-v4", ["x"])], undefined],
  ])("%s", (_, all, best) => {
    expect(bestCpuModel(all)).toBe(best);
  });
});
