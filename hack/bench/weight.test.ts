import { expect, test } from "vitest";
import { inHierarchy, ofAllPods } from "./weight.ts";

test("a cgroup has one path in all hierarchies", () => {
  expect(inHierarchy("/sys/fs/cgroup/memory/kubepods/burstable/pod1")).toBe("kubepods/burstable/pod1");
  expect(inHierarchy("/sys/fs/cgroup/kubepods.slice/pod1")).toBe("kubepods.slice/pod1");
});

test.each([
  ["kubepods/burstable/pod1", "kubepods"],
  ["kubepods/pod1", "kubepods"],
  ["lab/n1/kubepods/besteffort/pod1", "lab/n1/kubepods"],
  ["kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice", "kubepods.slice"],
])("the cgroup of all pods, of that of one: %s", (pod, all) => expect(ofAllPods(pod)).toBe(all));

test("what is no pod's has none", () =>
  expect(() => ofAllPods("system.slice/x")).toThrow("the cgroup system.slice/x is no pod's"));
