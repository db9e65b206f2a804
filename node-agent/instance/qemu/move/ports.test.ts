import { expect, test } from "vitest";
import { portsFrom } from "./ports.ts";

const UIDS = ["0b5e0b7c-2d40-4a6c-9d1a-3f1d4b8f8a01", "7c1c8b52-6f0e-4f0f-8f5b-2a1d4b8f8a02"];

test("every port of the range once, whoever asks", () => {
  for (const uid of UIDS) {
    const ports = [...portsFrom([49_152, 49_407], uid)];
    expect(new Set(ports).size).toBe(256);
    expect(Math.min(...ports)).toBe(49_152);
    expect(Math.max(...ports)).toBe(49_407);
  }
});

test("instances begin at different ones, the same instance always at the same", () => {
  const first = (uid: string): number | undefined => [...portsFrom([49_152, 49_407], uid)][0];
  expect(first(UIDS[0] ?? "")).not.toBe(first(UIDS[1] ?? ""));
  expect(first(UIDS[0] ?? "")).toBe(first(UIDS[0] ?? ""));
});

test("an empty range has none", () => {
  expect([...portsFrom([2, 1], UIDS[0] ?? "")]).toEqual([]);
});
