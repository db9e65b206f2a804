/** Whether guests can run on this machine, and how: found out by running one. */
import { readdir, readFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { askRuntime, BOOT_SECTOR, probe, type ProbeOptions } from "../../node-agent/instance/qemu/probe.ts";
import { skipped, unable, useGuests } from "./qemu/fixture.ts";
import { assemble, RUNTIME } from "./qemu/machine.ts";

describe.skipIf(unable !== undefined)(`probe of the accelerator${skipped}`, () => {
  const guests = useGuests();

  const run = (mode: ProbeOptions["mode"] = "auto", signal?: AbortSignal) =>
    probe({ paths: guests.machine.paths, runtimeVersion: RUNTIME, mode, ...(signal ? { signal } : {}) });
  const leftovers = async () => (await readdir(guests.machine.paths.root)).filter((name) => name.startsWith("probe-"));

  test("the probe runs a guest: here by emulation, and it says why", async () => {
    const facts = await run();
    expect(facts.machineTypes[0]).toMatch(/^pc-q35-\d+\.\d+$/);
    expect(facts.qemuVersion).toMatch(/^\d+\.\d+\.\d+$/);
    expect(facts.accelerator === "TCG").toBe(facts.acceleratorMessage !== undefined);
    expect(facts.cpuModel).toMatch(facts.accelerator === "TCG" ? /^Westmere-v1$/ : /-v\d$/);
    expect(await leftovers()).toEqual([]);
    await expect(probe({ paths: guests.machine.paths, runtimeVersion: "none", mode: "auto" })).rejects.toMatchObject({
      reason: "NoAccelerator",
    });
    // KVM is had, or it is said why not; it is never replaced.
    const why = `nodeAgent.accelerator is kvm, but this node has no KVM that works: ${facts.acceleratorMessage}`;
    const told = await run("kvm").catch((error: unknown) => error);
    expect(told).toMatchObject(facts.accelerator === "KVM" ? facts : { reason: "NoKvm", message: why });
  });

  test("the probe can be repeated at once, however the one before it ended", async () => {
    const first = await run("tcg");
    expect(first).toMatchObject({ accelerator: "TCG", acceleratorMessage: "nodeAgent.accelerator is tcg: KVM was not tried" });
    for (const breakOffMs of [50, 150, 400]) {
      await run("auto", AbortSignal.timeout(breakOffMs)).catch(() => undefined);
      expect(await childrenOfOurs("enter")).toEqual([]);
      expect(await childrenOfOurs("qemu")).toEqual([]);
      expect(await leftovers()).toEqual([]);
    }
    expect(await run("tcg")).toEqual(first);
    expect(await run("tcg")).toEqual(first);
  });

  test("a runtime that is not the current one says what it can run", async () => {
    const { paths } = guests.machine;
    const facts = await askRuntime({ paths, runtimeVersion: RUNTIME });
    const { qemuVersion, machineTypes } = await run("tcg");
    expect(facts).toEqual({ qemuVersion, machineTypes });
    await expect(askRuntime({ paths, runtimeVersion: "none" })).rejects.toThrow("closed the connection");
    expect(await leftovers()).toEqual([]);
  });

  test("the probe's guest is what its source says", async () => {
    expect(BOOT_SECTOR.equals(await readFile(await assemble("probe.S")))).toBe(true);
  });
});

/** Children of this process, not yet ended, with these letters in their name. */
async function childrenOfOurs(letters: string): Promise<string[]> {
  const found: string[] = [];
  for (const task of await readdir("/proc/self/task")) {
    const pids = (await readFile(`/proc/self/task/${task}/children`, "utf8")).trim().split(" ").filter(Boolean);
    for (const pid of pids) {
      const name = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "");
      if (name.includes(letters)) found.push(`${pid} ${name.trim()}`);
    }
  }
  return found;
}
