/** Whether guests can run on this machine, and how: found out by running one. */
import { readdir, readFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { BOOT_SECTOR, probe } from "../../node-agent/instance/qemu/probe.ts";
import { skipped, unable, useGuests } from "./qemu/fixture.ts";
import { assemble, RUNTIME } from "./qemu/machine.ts";

describe.skipIf(unable !== undefined)(`probe of the accelerator${skipped}`, () => {
  const guests = useGuests();

  test("the probe runs a guest: here by emulation, and it says why", async () => {
    const facts = await probe({ paths: guests.machine.paths, runtimeVersion: RUNTIME });
    expect(facts.machineTypes[0]).toMatch(/^pc-q35-\d+\.\d+$/);
    expect(facts.qemuVersion).toMatch(/^\d+\.\d+\.\d+$/);
    expect(facts.accelerator === "TCG").toBe(facts.acceleratorMessage !== undefined);
    expect(facts.cpuModel).toMatch(facts.accelerator === "TCG" ? /^Westmere-v1$/ : /-v\d$/);
    expect((await readdir(guests.machine.paths.root)).filter((name) => name.startsWith("probe-"))).toEqual([]);
    await expect(probe({ paths: guests.machine.paths, runtimeVersion: "none" })).rejects.toMatchObject({
      reason: "NoAccelerator",
    });
  });

  test("the probe's guest is what its source says", async () => {
    expect(BOOT_SECTOR.equals(await readFile(await assemble("probe.S")))).toBe(true);
  });
});
