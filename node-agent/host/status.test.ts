import { describe, expect, it } from "vitest";
import { hostStatus, onlyFigures, type HostSeen } from "./status.ts";

const GIB = 1024 ** 3;
const MIB = 1024 ** 2;
const facts = {
  accelerator: "TCG" as const,
  qemuVersion: "10.0.2",
  runtimeVersion: "1",
  machineTypes: ["pc-q35-10.0"],
  cpuModel: "qemu64-v1",
};
const local = { name: "local", ready: true, sizeBytes: 8 * GIB, usedBytes: 100 * MIB };
const seen: HostSeen = { facts, trouble: undefined, ovsDatapath: "userspace", pools: [local], poolsSettled: true, instances: 2 };
const at = (text: string): Date => new Date(text);
const first = hostStatus(seen, undefined, at("2026-01-01T00:00:00Z"));

describe("hostStatus", () => {
  it("tells all of it", () => {
    expect(first).toEqual({
      ...facts,
      ovsDatapath: "userspace",
      pools: [local],
      poolNames: "local",
      instances: 2,
      conditions: [
        {
          type: "Ready",
          status: "True",
          reason: "Ready",
          message: "instances run here with TCG",
          lastTransitionTime: "2026-01-01T00:00:00Z",
        },
      ],
    });
  });

  it("tells which runtimes there are, and how far the instances are in going to the current one", () => {
    const old = { version: "1", qemuVersion: "10.0.2", machineTypes: ["pc-q35-10.0"], current: false, instances: 28 };
    const now = { version: "2", qemuVersion: "10.0.13", machineTypes: ["pc-q35-10.0"], current: true, instances: 12 };
    const told = hostStatus({ ...seen, runtimes: [now, old] }, first, at("2026-01-02T00:00:00Z"));
    expect(told).toMatchObject({ runtimes: [old, now], updated: "12/40" });
    const unknown = hostStatus(seen, told, at("2026-01-02T00:00:00Z"));
    expect(unknown).toEqual(told);
    const more = [
      { ...now, instances: 13 },
      { ...old, instances: 27 },
    ];
    const later = hostStatus({ ...seen, runtimes: more }, told, at("2026-01-02T00:00:00Z"));
    expect(later.updated).toBe("13/40");
    expect(onlyFigures(told, later)).toBe(true);
  });

  it("is the same later when only a little more is used", () => {
    const later = { ...seen, pools: [{ ...local, usedBytes: 170 * MIB }] };
    expect(hostStatus(later, first, at("2026-01-02T00:00:00Z"))).toEqual(first);
    const much = hostStatus({ ...seen, pools: [{ ...local, usedBytes: 300 * MIB + 5 }] }, first, at("2026-01-02T00:00:00Z"));
    expect(much.pools?.[0]?.usedBytes).toBe(300 * MIB);
  });

  it("tells the new use with a new size", () => {
    const grown = hostStatus(
      { ...seen, pools: [{ ...local, sizeBytes: 9 * GIB, usedBytes: 101 * MIB }] },
      first,
      at("2026-01-02T00:00:00Z"),
    );
    expect(grown.pools?.[0]).toMatchObject({ sizeBytes: 9 * GIB, usedBytes: 101 * MIB });
  });

  it("is not ready before the probe, and with trouble in its words; the time is that of the change", () => {
    const probing = hostStatus(
      { ...seen, facts: undefined, pools: [{ name: "x", ready: false }] },
      undefined,
      at("2026-01-01T00:00:00Z"),
    );
    expect(probing).toMatchObject({ poolNames: "", conditions: [{ status: "False", reason: "Probing" }] });
    const trouble = { reason: "NoAccelerator", message: "no guest runs" };
    const broken = hostStatus({ ...seen, trouble }, first, at("2026-01-02T00:00:00Z"));
    expect(broken.conditions).toEqual([
      { type: "Ready", status: "False", ...trouble, lastTransitionTime: "2026-01-02T00:00:00Z" },
    ]);
  });

  it("keeps what a former agent said until this one has looked", () => {
    const starting: HostSeen = {
      facts: undefined,
      trouble: undefined,
      ovsDatapath: undefined,
      pools: [],
      poolsSettled: false,
      instances: 2,
    };
    expect(hostStatus(starting, first, at("2026-01-02T00:00:00Z"))).toEqual(first);
    const settled = hostStatus({ ...starting, poolsSettled: true }, first, at("2026-01-02T00:00:00Z"));
    const { pools: _, ...without } = first;
    expect(settled).toEqual({ ...without, poolNames: "" });
  });

  it("knows what nobody waits for", () => {
    expect(onlyFigures(first, { ...first, instances: 5, pools: [{ ...local, usedBytes: 7 }] })).toBe(true);
    expect(onlyFigures(first, { ...first, pools: [{ ...local, ready: false }] })).toBe(false);
  });
});

it("disks that instances left which vanished are said until they are gone", () => {
  const when = new Date("2026-01-01T00:00:00Z");
  const words = ["default/web in /var/lib/drover/pools/local/volumes/uid-1"];
  const find = (status: ReturnType<typeof hostStatus>) => status.conditions?.find(({ type }) => type === "LostDisks");
  expect(find(hostStatus({ ...seen, lostDisks: [] }, undefined, when))).toBeUndefined();
  const lost = hostStatus({ ...seen, lostDisks: words }, undefined, when);
  expect(find(lost)).toMatchObject({ status: "True", message: expect.stringContaining(words[0] ?? "") });
  expect(find(hostStatus(seen, lost, when))).toMatchObject({ status: "True" });
  expect(find(hostStatus({ ...seen, lostDisks: [] }, lost, when))).toMatchObject({ status: "False" });
});
