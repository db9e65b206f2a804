import { describe, expect, it } from "vitest";
import { migrationSettings, resolvePolicy } from "./settings.ts";

describe("migrationSettings", () => {
  it("has the chart's defaults", () => {
    expect(migrationSettings("{}")).toEqual({
      tls: true,
      connections: 1,
      defaults: { maxPauseMs: 300, maxBytesPerSecond: undefined, onStall: "Throttle", timeoutMs: 21_600_000 },
      parallel: { outPerNode: 2, inPerNode: 2, perCluster: 8 },
      retries: 3,
      backoff: { firstMs: 10_000, mostMs: 300_000 },
      history: { count: 5, ageMs: 604_800_000 },
    });
  });

  it("reads what the chart gives", () => {
    const defaults = { maxPause: "1s", maxBytesPerSecond: "256Mi", onStall: "Abort", timeout: "30m" };
    const values = {
      port: 9413,
      tls: false,
      connections: 2,
      defaults,
      parallel: { outPerNode: "1" },
      retries: 0,
      history: { count: 2, age: "1h" },
    };
    expect(migrationSettings(JSON.stringify(values))).toEqual({
      tls: false,
      connections: 2,
      defaults: { maxPauseMs: 1000, maxBytesPerSecond: 268_435_456, onStall: "Abort", timeoutMs: 1_800_000 },
      parallel: { outPerNode: 1, inPerNode: 2, perCluster: 8 },
      retries: 0,
      backoff: { firstMs: 10_000, mostMs: 300_000 },
      history: { count: 2, ageMs: 3_600_000 },
    });
  });

  it.each([
    ["{", "DROVER_MIGRATION must be JSON"],
    ['{"defaults": {"maxPause": "soon"}}', "defaults.maxPause: 'soon' is not a time such as 300ms, 30s or 30m"],
    ['{"defaults": {"maxBytesPerSecond": "fast"}}', "defaults.maxBytesPerSecond: 'fast' is not a quantity"],
    ['{"parallel": {"perCluster": 0}, "retries": -1}', "parallel.perCluster must be at least 1; retries must be at least 0"],
    ['{"connections": 9}', "connections must be at most 8"],
  ])("refuses %s", (text, says) => expect(() => migrationSettings(text)).toThrow(says));
});

describe("resolvePolicy", () => {
  const settings = migrationSettings('{"defaults": {"maxBytesPerSecond": "1Gi"}}');
  it("is the chart's where the Migration says nothing", () => {
    expect(resolvePolicy({}, settings)).toEqual({
      maxPauseMs: 300,
      maxBytesPerSecond: 1_073_741_824,
      onStall: "Throttle",
      timeoutMs: 21_600_000,
      tls: true,
    });
  });
  it("is the Migration's own where it does", () => {
    const policy = { maxPause: "1.5s", maxBytesPerSecond: "64Mi", onStall: "PostCopy", timeout: "10m" } as const;
    expect(resolvePolicy({ policy }, { ...settings, tls: false })).toEqual({
      maxPauseMs: 1500,
      maxBytesPerSecond: 67_108_864,
      onStall: "PostCopy",
      timeoutMs: 600_000,
      tls: false,
    });
  });
  it.each([
    [{}, 2],
    [{ onStall: "Abort" }, 2],
    [{ onStall: "PostCopy" }, undefined],
    [{ maxBytesPerSecond: "64Mi" }, undefined],
  ] as const)("has several connections where QEMU keeps its word with them: %j", (policy, connections) => {
    expect(resolvePolicy({ policy }, migrationSettings('{"connections": 2}')).connections).toBe(connections);
  });
});
