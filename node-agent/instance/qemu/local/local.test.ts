import { describe, expect, it, test } from "vitest";
import { canWriteBoth } from "./moves.ts";
import { fileInside, otherPair, volumeNodes } from "./nodes.ts";

describe("the nodes of a disk that changes its pool", () => {
  const to = { pool: "fast", path: "/var/lib/drover/pools/fast/volumes/u/root.raw" };
  it("take the names that it does not have now", () => {
    expect(otherPair("root", { node: "disk-root", file: "" })).toEqual({ disk: "disk-root.b", file: "file-root.b" });
    expect(otherPair("root", { node: "disk-root.b", file: "" })).toEqual({ disk: "disk-root", file: "file-root" });
  });
  it("are those of the command line", () =>
    expect(volumeNodes({ disk: "disk-root.b", file: "file-root.b" }, fileInside(to, "root"), true)).toEqual([
      {
        driver: "file",
        "node-name": "file-root.b",
        filename: "/disks/fast/root.raw",
        aio: "threads",
        cache: { direct: true },
        discard: "unmap",
      },
      { driver: "raw", "node-name": "disk-root.b", file: "file-root.b", cache: { direct: true }, discard: "unmap" },
    ]));
  it("have names that QEMU takes, however long the disk's is", () =>
    expect(otherPair("a".repeat(20), { node: "", file: "" }).file.length).toBeLessThan(32));
});

test.each([
  ["10.0.13", true],
  ["8.2.0", true],
  ["8.1.5", false],
  ["7.2.9", false],
  [undefined, false],
])("QEMU %s can write to both: %s", (version, can) => expect(canWriteBoth(version)).toBe(can));
