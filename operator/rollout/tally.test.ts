import { describe, expect, it } from "vitest";
import { hostFixture } from "../migration/fixtures.ts";
import { updatable } from "../migration/in-place/fixtures.ts";
import type { Instance } from "../../crds/instance.ts";
import { CurrentRuntimes } from "./current.ts";
import { Tally } from "./tally.ts";

const key = (name: string) => ({ namespace: "team-a", name });
const on = (node: string, runtimeVersion = "r1", more: Partial<Instance["status"]> = {}): Instance => {
  const one = updatable({ runtimeVersion });
  return { ...one, status: { ...one.status, nodeName: node, ...more } };
};

describe("Tally", () => {
  it("counts by node and runtime, and forgets what is gone", () => {
    const tally = new Tally();
    tally.note({ key: key("a"), now: on("n1") });
    tally.note({ key: key("b"), now: on("n1", "r2") });
    tally.note({ key: key("c"), now: on("n2") });
    expect(tally.count(["n1", "n2"], "r2")).toEqual({ updated: 1, total: 3 });
    expect([...tally.outdated("n1", "r2")]).toEqual(["team-a/a"]);
    tally.note({ key: key("a"), old: on("n1"), now: on("n1", "r2") });
    tally.note({ key: key("c"), old: on("n2") });
    expect(tally.count(["n1", "n2", "n3"], "r2")).toEqual({ updated: 2, total: 2 });
    expect([...tally.outdated("n1", "r2")]).toEqual([]);
  });

  it("counts a guest on also while it arrives at its next claim, and then by what is said of it there", () => {
    const migration = { name: "m", uid: "m" };
    const leaving = on("n1", "r1", { migration });
    const arriving = on("n2", "r1", { migration, claim: { name: "c-2", serial: 2, uid: "another", node: "n2" } });
    const tally = new Tally();
    tally.note({ key: key("a"), now: leaving });
    expect(tally.note({ key: key("a"), old: leaving, now: arriving })).toEqual([]);
    expect(tally.count(["n1", "n2"], "r1")).toEqual({ updated: 1, total: 1 });
    expect(tally.note({ key: key("a"), old: arriving, now: on("n2", "r2", { migration }) })).toEqual(["n1", "n2"]);
    expect(tally.count(["n1", "n2"], "r2")).toEqual({ updated: 1, total: 1 });
    const lost = on("n2", "r2", { claim: { name: "c-3", serial: 3, uid: "yet another", node: "n2" } });
    expect(tally.note({ key: key("a"), now: lost })).toEqual(["n2"]);
    expect(tally.count(["n1", "n2"], "r2").total).toBe(0);
  });

  it.each<[string, Instance | undefined, Instance | undefined, string[]]>([
    ["comes", undefined, on("n1"), ["n1"]],
    ["goes", on("n1"), undefined, ["n1"]],
    ["moves", on("n1"), on("n2"), ["n1", "n2"]],
    ["is updated", on("n1"), on("n1", "r2"), ["n1"]],
    ["stops", on("n1"), on("n1", "r1", { guest: { state: "Stopped" } }), ["n1"]],
    ["does not run", undefined, on("n1", "r1", { guest: { state: "Starting" } }), []],
    ["has a Migration", on("n1"), on("n1", "r1", { migration: { name: "m", uid: "m" } }), ["n1"]],
    ["has another address", on("n1"), on("n1", "r1", { ip: "10.0.0.1" }), []],
  ])("tells the nodes that it matters to: %s", (_, old, now, nodes) => {
    const tally = new Tally();
    if (old !== undefined) tally.note({ key: key("a"), now: old });
    expect(tally.note({ key: key("a"), ...(old && { old }), ...(now && { now }) })).toEqual(nodes);
  });
});

describe("CurrentRuntimes", () => {
  const host = (name: string, current: string) =>
    hostFixture(name, { runtimes: ["r1", "r2"].map((version) => ({ version, current: version === current, instances: 0 })) });

  it("knows which nodes have which, and what a change concerns", () => {
    const current = new CurrentRuntimes();
    expect(current.note({ key: { name: "n1" }, now: host("n1", "r1") })).toEqual(["r1"]);
    expect(current.note({ key: { name: "n2" }, now: host("n2", "r1") })).toEqual(["r1"]);
    expect(current.note({ key: { name: "n2" }, now: host("n2", "r1") })).toEqual([]);
    expect(current.note({ key: { name: "n1" }, now: host("n1", "r2") })).toEqual(["r1", "r2"]);
    expect([...(current.of("r1")?.nodes ?? [])]).toEqual(["n2"]);
    expect([current.on("n1"), current.on("n3"), current.nodes]).toEqual(["r2", undefined, 2]);
    expect(current.note({ key: { name: "n2" }, old: host("n2", "r1") })).toEqual(["r1"]);
    expect(current.of("r1")).toBeUndefined();
  });

  it("does not believe an agent that says nothing of its runtimes", () =>
    expect(new CurrentRuntimes().note({ key: { name: "n1" }, now: hostFixture("n1", { runtimeVersion: "r1" }) })).toEqual([]));
});
