import { expect, it } from "vitest";
import type { Change, Node } from "../kube/index.ts";
import { PublishedPools } from "./published-pools.ts";

const node = (name: string, allocatable: Record<string, string> = {}): Node => ({
  apiVersion: "v1",
  kind: "Node",
  metadata: { name },
  spec: {},
  status: { allocatable },
});
const local = (gib: string) => ({ "drover.dev/pool.local": gib, cpu: "4" });

/** A cache of Nodes by hand. */
function world() {
  const known = new Map<string, Node>();
  let tell: (change: Change<Node>) => void = () => undefined;
  const pools = new PublishedPools({
    onChange: (fn) => {
      tell = fn;
      return () => undefined;
    },
  });
  const first: string[] = [];
  pools.onFirst((pool) => first.push(pool));
  const set = (name: string, now?: Node) => {
    const old = known.get(name);
    if (now === undefined) known.delete(name);
    else known.set(name, now);
    tell({ key: { name }, ...(old && { old }), ...(now && { now }) });
  };
  return { pools, first, set };
}

it("tells once of a pool that the first Node offers, and again after none did", () => {
  const { pools, first, set } = world();
  set("n1", node("n1"));
  set("n1", node("n1", local("0")));
  expect(pools.has("local")).toBe(false);
  set("n1", node("n1", local("8")));
  set("n2", node("n2", { ...local("8"), "drover.dev/pool.fast": "1" }));
  set("n1", node("n1", local("7")));
  expect([pools.has("local"), pools.has("fast"), first]).toEqual([true, true, ["local", "fast"]]);
  set("n2");
  expect([pools.has("local"), pools.has("fast")]).toEqual([true, false]);
  set("n1", node("n1", local("0")));
  expect(pools.has("local")).toBe(false);
  set("n1", node("n1", local("8")));
  expect(first).toEqual(["local", "fast", "local"]);
});

it("takes nothing else for a pool", () => {
  const { first, set } = world();
  set("n1", node("n1", { cpu: "4", "example.com/pool.local": "3" }));
  expect(first).toEqual([]);
});
