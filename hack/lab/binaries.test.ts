import { describe, expect, test } from "vitest";
import { namesVersion } from "./binaries.ts";
import { canFetchToolchains } from "./go.ts";
import { checksumIn } from "./releases.ts";

describe("namesVersion", () => {
  test.each([
    ["Kubernetes v1.34.4", "v1.34.4", true],
    ["Kubernetes v1.34.40", "v1.34.4", false],
    ["Kubernetes v11.34.4", "v1.34.4", false],
    ["Client Version: v1.34.4\nKustomize Version: v5.7.1", "v1.34.4", true],
    ["etcd Version: 3.6.4\nGit SHA: Not provided", "3.6.4", true],
    ["v3.21.4+g1a2b3c", "v3.21.4", true],
    ["", "v1.34.4", false],
  ])("%s / %s", (printed, version, right) => expect(namesVersion(printed, version)).toBe(right));
});

describe("checksumIn", () => {
  const sum = "a".repeat(64);
  test.each([
    ["alone", sum, "x", sum],
    ["in a list", `${"b".repeat(64)}  y\n${sum}  x\n`, "x", sum],
    ["one with its name", `${sum}  x`, "x", sum],
    ["of another file only", `${sum}  y`, "x", undefined],
    ["a page of an error", "<html>not found</html>", "x", undefined],
    ["empty", "", "x", undefined],
  ])("%s", (_, text, name, found) => expect(checksumIn(text, name)).toBe(found));
});

describe("canFetchToolchains", () => {
  test.each([
    ["go version go1.19.8 linux/amd64", false],
    ["go version go1.21.0 linux/amd64", true],
    ["go version go1.26.1 linux/amd64", true],
    ["", false],
  ])("%s", (printed, can) => expect(canFetchToolchains(printed)).toBe(can));
});
