import { describe as group, expect, test } from "vitest";
import { concerning, describe, differences, type Inventory } from "./inventory.ts";

const before: Inventory = { mount: { "/": "ext4" }, sysctl: { "/proc/sys/kernel/panic": "0" }, link: { lo: "lo" } };

group("differences", () => {
  test("none between equals", () => expect(differences(before, structuredClone(before))).toEqual([]));

  test.each<[string, Inventory, string[]]>([
    ["added", { ...before, link: { lo: "lo", "dl-1": "dl-1" } }, ["link added: dl-1"]],
    ["removed", { ...before, link: {} }, ["link removed: lo"]],
    ["changed", { ...before, sysctl: { "/proc/sys/kernel/panic": "10" } }, ["sysctl changed: /proc/sys/kernel/panic (0 -> 10)"]],
    ["a kind that was not there", { ...before, loop: { loop0: "/a.img" } }, ["loop added: loop0 (/a.img)"]],
  ])("%s", (_, after, lines) => expect(differences(before, after).map(describe)).toEqual(lines));
});

group("concerning", () => {
  const after: Inventory = {
    ...before,
    link: { lo: "lo", "dl-abc": "dl-abc", other: "other" },
    loop: { loop0: "/var/tmp/drover-lab-abc/x.img", loop1: "/home/x.img" },
    sysctl: { "/proc/sys/kernel/panic": "10" },
  };
  test("keeps what names the lab, and every sysctl", () => {
    const kept = concerning(differences(before, after), ["dl-abc", "drover-lab-abc"]).map((one) => one.name);
    expect(kept.sort()).toEqual(["/proc/sys/kernel/panic", "dl-abc", "loop0"]);
  });
});
