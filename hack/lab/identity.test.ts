import { describe, expect, test } from "vitest";
import { describeLab, nodeNamed } from "./identity.ts";

describe("describeLab", () => {
  const lab = describeLab("/home/a/drover", {});

  test("is the same each time and differs between checkouts", () => {
    expect(describeLab("/home/a/drover", {})).toEqual(lab);
    const other = describeLab("/home/b/drover", {});
    expect([other.id, other.state, other.host.link, other.cgroup]).not.toEqual([lab.id, lab.state, lab.host.link, lab.cgroup]);
  });

  test("keeps link names within the kernel's 15 characters", () => {
    expect(lab.host.link.length).toBeLessThanOrEqual(15);
  });

  test("gives every node addresses of its own inside the lab's subnet", () => {
    const prefix = lab.subnet.split(".").slice(0, 2).join(".");
    const all = [lab.hub.address, lab.host.address, ...lab.nodes.flatMap((node) => [node.address, node.podCidr])];
    expect(new Set(all).size).toBe(all.length);
    for (const one of all) expect(one.startsWith(`${prefix}.`)).toBe(true);
  });

  test.each(["96", "97", "256", "-1", "x", "1.5"])("refuses %s as an octet", (octet) => {
    expect(() => describeLab("/a", { DROVER_LAB_OCTET: octet })).toThrow(/give a number from 0 to 255/);
  });

  test("follows the environment", () => {
    const moved = describeLab("/a", { DROVER_CACHE: "/c", DROVER_STATE: "/s", DROVER_LAB_OCTET: "7" });
    expect([moved.cache, moved.state, moved.subnet]).toEqual(["/c", "/s", "10.7.0.0/16"]);
  });

  test("names the nodes there are when asked for another", () => {
    expect(() => nodeNamed(lab, "n9")).toThrow('there is no node "n9"; the lab has n1, n2, n3');
  });
});
