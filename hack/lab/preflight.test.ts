import { describe, expect, test } from "vitest";
import { obstacles, type Machine } from "./preflight.ts";

const GIB = 1024 ** 3;
const good: Machine = {
  uid: 0,
  hasApt: true,
  memoryAvailableBytes: 16 * GIB,
  stateFreeBytes: 100 * GIB,
  cacheFreeBytes: 100 * GIB,
  inotifyLeft: 128,
  bare: false,
  checkout: "/home/a/drover",
  architecture: "x64",
};

describe("obstacles", () => {
  test("none on a good machine, packages missing or not", () => {
    expect(obstacles(good, [])).toEqual([]);
    expect(obstacles(good, ["buildah"])).toEqual([]);
  });

  test("a cluster alone needs less", () => {
    expect(obstacles({ ...good, bare: true, memoryAvailableBytes: 2 * GIB, stateFreeBytes: 4 * GIB }, [])).toEqual([]);
  });

  test.each<[string, Partial<Machine>, string[], RegExp]>([
    ["not root", { uid: 1000 }, [], /run it as root/],
    ["no apt", { hasApt: false }, ["buildah", "gcc"], /no apt-get here: install buildah, gcc/],
    ["little memory", { memoryAvailableBytes: 2 * GIB }, [], /needs 6.0 GiB of free memory, and 2.0 GiB are free/],
    ["little disk", { stateFreeBytes: GIB }, [], /12.0 GiB of disk.*DROVER_STATE/],
    ["little cache", { cacheFreeBytes: GIB }, [], /DROVER_CACHE/],
    ["few inotify instances", { inotifyLeft: 10 }, [], /root has 10 left: raise the limit \(sysctl fs.inotify/],
    ["a path with a space", { checkout: "/home/a b" }, [], /move it elsewhere/],
    ["another processor", { architecture: "arm64" }, [], /arm64/],
  ])("%s", (_, differs, missing, sentence) => {
    const found = obstacles({ ...good, ...differs }, missing);
    expect(found).toHaveLength(1);
    expect(found[0]).toMatch(sentence);
  });
});
