import { describe, expect, it } from "vitest";
import { defaultPoolSize, formatSize, GIB, nodeReserve, poolHeadroom } from "./size.ts";

const MIB = 1024 ** 2;

describe("sizes", () => {
  it.each([
    [10 * GIB, 5],
    [25 * GIB, 5],
    [49.9 * GIB, 9],
    [100 * GIB, 20],
    [1000 * GIB, 30],
  ])("default size on a file system of %d bytes is %d GiB", (fs, gib) => expect(defaultPoolSize(fs)).toBe(gib * GIB));

  it.each([
    [256 * MIB, 64 * MIB],
    [8 * GIB, Math.ceil((8 * GIB) / 50)],
    [500 * GIB, GIB],
  ])("headroom of %d is %d", (size, room) => expect(poolHeadroom(size)).toBe(room));

  it("leaves the node a twentieth, at most 1 GiB", () => {
    expect(nodeReserve(2 * GIB)).toBe(Math.ceil((2 * GIB) / 20));
    expect(nodeReserve(100 * GIB)).toBe(GIB);
  });

  it.each([
    [8 * GIB, "8Gi"],
    [1536 * MIB, "1536Mi"],
    [8 * GIB - 1, "7.9Gi"],
  ])("%d reads %s", (bytes, text) => expect(formatSize(bytes)).toBe(text));
});
