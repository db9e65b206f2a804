import { describe, expect, it } from "vitest";
import { Store } from "./store.ts";
import type { Change, KubeObject } from "./types.ts";

const object = (name: string, uid: string, resourceVersion: string, node?: string): KubeObject => ({
  apiVersion: "v1",
  kind: "Thing",
  metadata: { namespace: "ns", name, uid, resourceVersion, ...(node ? { labels: { node } } : {}) },
});
const shown = (changes: Change[]): string[] =>
  changes.map(
    ({ key, old, now }) =>
      `${key.name}: ${old?.metadata.uid ?? "-"}@${old?.metadata.resourceVersion ?? ""} -> ${now?.metadata.uid ?? "-"}@${now?.metadata.resourceVersion ?? ""}`,
  );

const a1 = object("a", "u1", "1", "n1");
const a2 = object("a", "u1", "2", "n2");
const aNew = object("a", "u9", "3", "n2");
const b1 = object("b", "u2", "1", "n1");

describe.each<[string, KubeObject[], KubeObject[], string[]]>([
  ["nothing new", [a1, b1], [a1, b1], []],
  ["all new", [], [a1, b1], ["a: -@ -> u1@1", "b: -@ -> u2@1"]],
  ["changed", [a1], [a2], ["a: u1@1 -> u1@2"]],
  ["gone", [a1, b1], [b1], ["a: u1@1 -> -@"]],
  ["deleted and made again under the same name", [a1], [aNew], ["a: u1@1 -> -@", "a: -@ -> u9@3"]],
  ["deletions first", [a1], [b1], ["a: u1@1 -> -@", "b: -@ -> u2@1"]],
])("replaced by a list: %s", (_, before, after, changes) => {
  const store = new Store<KubeObject>({ node: (one) => (one.metadata.labels?.["node"] ? [one.metadata.labels["node"]] : []) });
  store.replace(before);
  it("tells the changes", () => expect(shown(store.replace(after))).toEqual(changes));
  it("holds the list", () => expect(store.list()).toEqual(after));
  it("has the indexes right", () => {
    for (const node of ["n1", "n2"]) {
      expect(store.byIndex("node", node)).toEqual(after.filter((one) => one.metadata.labels?.["node"] === node));
    }
  });
});

describe("one by one", () => {
  it("the same version again is no change", () => {
    const store = new Store<KubeObject>();
    store.set(a1);
    expect(store.set({ ...a1 })).toEqual([]);
  });
  it("a deletion tells the last state, and only once", () => {
    const store = new Store<KubeObject>();
    store.set(a1);
    expect(shown(store.remove({ namespace: "ns", name: "a" }, a2))).toEqual(["a: u1@2 -> -@"]);
    expect(store.remove({ namespace: "ns", name: "a" })).toEqual([]);
  });
  it("asks for an index that exists", () =>
    expect(() => new Store<KubeObject>({ x: () => [] }).byIndex("y", "")).toThrow("there is no index y; there are: x"));
});
