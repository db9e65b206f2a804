import { describe, expect, test } from "vitest";
import type { HostFacts } from "../host/index.ts";
import { chooseMachine, newestMachine } from "./choose.ts";
import { note } from "./fixtures.ts";

const facts: HostFacts = {
  accelerator: "TCG",
  runtimeVersion: "r2",
  qemuVersion: "10.1.0",
  machineTypes: ["pc-i440fx-10.1", "pc-q35-9.2", "pc-q35-10.1", "pc-q35-10.0", "q35", "none"],
  cpuModel: "max",
};

test("versions are compared as numbers", () => {
  expect(newestMachine(facts.machineTypes)).toBe("pc-q35-10.1");
  expect(newestMachine(["q35"])).toBeUndefined();
});

describe("chooseMachine", () => {
  test("a first start takes what is newest here", () => {
    expect(chooseMachine(facts, undefined)).toEqual({
      machineType: "pc-q35-10.1",
      cpuModel: "max",
      accelerator: "TCG",
      runtimeVersion: "r2",
    });
  });

  test("a guest from another node keeps its machine where that is known, and takes this node's CPU", () => {
    expect(chooseMachine(facts, undefined, { machineType: "pc-q35-9.2" })).toMatchObject({
      machineType: "pc-q35-9.2",
      cpuModel: "max",
    });
    expect(chooseMachine(facts, undefined, { machineType: "pc-q35-8.2" })).toMatchObject({ machineType: "pc-q35-10.1" });
  });

  test("a later one keeps machine and CPU, and takes the new runtime", () => {
    expect(chooseMachine(facts, note().run)).toEqual({
      machineType: "pc-q35-10.0",
      cpuModel: "qemu64",
      accelerator: "TCG",
      runtimeVersion: "r2",
    });
  });

  test("unless that does not know the machine any more", () => {
    const run = note({ machineType: "pc-q35-7.2" }).run;
    expect(chooseMachine(facts, run)).toMatchObject({ machineType: "pc-q35-7.2", runtimeVersion: "r1" });
  });

  test("says so when there is nothing to choose from", () => {
    expect(() => chooseMachine({ ...facts, machineTypes: [] }, undefined)).toThrow(/knows no machine type pc-q35/);
  });
});
