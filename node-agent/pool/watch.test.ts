import { expect, it } from "vitest";
import { nodePaths } from "../node.ts";
import { poolOfMount } from "./watch.ts";

it("knows the mount points of pools", () => {
  const paths = nodePaths("/var/lib/drover");
  expect(poolOfMount(paths, "/var/lib/drover/pools/local")).toBe("local");
  expect(poolOfMount(paths, "/var/lib/drover/pools/local/volumes")).toBeUndefined();
  expect(poolOfMount(paths, "/var/lib/kubelet/x")).toBeUndefined();
});
