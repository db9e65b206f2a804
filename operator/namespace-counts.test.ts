import { expect, it } from "vitest";
import type { Change, KubeObject } from "../kube/index.ts";
import { NamespaceCounts } from "./namespace-counts.ts";

it("counts what came and did not go, each object once", () => {
  let tell: (change: Change) => void = () => undefined;
  const counts = new NamespaceCounts({ onChange: (fn) => void (tell = fn) });
  const key = (name: string, namespace = "a") => ({ namespace, name });
  const now: KubeObject = { apiVersion: "v1", kind: "Pod", metadata: { name: "x" } };
  tell({ key: key("1"), now });
  tell({ key: key("1"), old: now, now });
  tell({ key: key("2"), now });
  tell({ key: key("1", "b"), now });
  tell({ key: key("2"), old: now });
  tell({ key: key("2"), old: now });
  expect(["a", "b", "c"].map((namespace) => counts.of(namespace))).toEqual([1, 1, 0]);
});
