import { describe, expect, it } from "vitest";
import { rolloutName } from "./names.ts";

describe("rolloutName", () => {
  it.each([
    ["a name as it is", "10.0.13-ab12cd", "10.0.13-ab12cd"],
    ["capital letters", "R1", /^r1-[0-9a-f]{8}$/],
    ["what no name may have", "a_b", /^a-b-[0-9a-f]{8}$/],
    ["an end that no name may have", "a-", /^a-[0-9a-f]{8}$/],
    ["one that is too long for a label", "x".repeat(128), /^x{54}-[0-9a-f]{8}$/],
  ])("%s", (_, version, want) => expect(rolloutName(version)).toMatch(want));

  it("gives no two versions one name", () => {
    const names = ["r1", "R1", "r_1", "r-1", "r.1", "r-1-", "r1_"].map(rolloutName);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(name).toMatch(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/);
  });
});
