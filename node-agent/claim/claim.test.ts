import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { silentLogger, type Pod } from "../../kube/index.ts";
import { byInstance, Claims } from "./claims.ts";
import { isContainer } from "./holder.ts";
import { claimState } from "./state.ts";

const pod = (over: Partial<Pod["metadata"]> = {}, status?: Pod["status"]): Pod => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "drover-web-abcde", namespace: "default", uid: "c1", labels: { "drover.dev/claim": "web" }, ...over },
  spec: { containers: [] },
  ...(status === undefined ? {} : { status }),
});
const deletionTimestamp = "2026-01-01T13:00:00Z";

describe("claimState", () => {
  test.each<[string, Pod | undefined, ReturnType<typeof claimState>]>([
    ["none", undefined, { state: "gone" }],
    ["another pod of that name", pod({ uid: "c2" }), { state: "gone" }],
    ["waiting for its holder", pod({}, { phase: "Pending" }), { state: "alive" }],
    ["its holder runs", pod({}, { phase: "Running" }), { state: "alive" }],
    ["being deleted", pod({ deletionTimestamp }), { state: "deleting", endsAt: Date.UTC(2026, 0, 1, 13) }],
    [
      "evicted",
      pod({}, { phase: "Failed", reason: "Evicted", message: "node was low on memory" }),
      { state: "over", why: "node was low on memory" },
    ],
  ])("%s", (_, seen, state) => {
    expect(claimState(seen, "c1")).toEqual(state);
  });
});

test.each([
  ["drover", false],
  ["drover/deeper", false],
  ["abc123", true],
  ["cri-containerd-abc123.scope", true],
  ["abc123/child", true],
  ["sandbox99", false],
])("cgroup %s is of the container: %s", (cgroup, is) => {
  expect(isContainer(cgroup, ["abc123", ""])).toBe(is);
});

test("pods are found by their instance", () => {
  expect(byInstance(pod())).toEqual(["default/web"]);
  expect(byInstance(pod({ labels: {} }))).toEqual([]);
});

describe("Claims", () => {
  let root: string;
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), "dclaim-"));
  });
  afterEach(() => rm(root, { recursive: true, force: true }));

  const claims = (parts: { pods?: Pod[]; synced?: boolean; live?: () => Promise<Pod | undefined>; guests?: number[] }): Claims =>
    new Claims({
      client: { get: (parts.live ?? (() => Promise.resolve(undefined))) as never },
      pods: { byIndex: () => parts.pods ?? [], hasSynced: parts.synced ?? true },
      cgroups: { find: () => Promise.resolve("kubepods/podc1"), processes: () => Promise.resolve(parts.guests ?? []) },
      cgroupRoot: root,
      log: silentLogger,
    });
  const key = { namespace: "default", name: "web" };
  const claim = { uid: "c1", name: "drover-web-abcde" };

  test("a claim that the cache does not have is asked for", async () => {
    expect(await claims({ live: () => Promise.resolve(pod()) }).state(key, claim)).toEqual({ state: "alive" });
    expect(await claims({}).state(key, claim)).toEqual({ state: "gone" });
  });

  test("nothing is known while the API server is away, or the cache is empty", async () => {
    expect(await claims({ live: () => Promise.reject(new Error("away")) }).state(key, claim)).toEqual({ state: "unknown" });
    expect(await claims({ synced: false }).state(key, claim)).toEqual({ state: "unknown" });
  });

  test("a holder is left alone while its claim is not being deleted, or a guest is in it", async () => {
    expect(await claims({ pods: [pod()] }).endHolders(key)).toBe(false);
    expect(await claims({ pods: [pod({ deletionTimestamp })], guests: [1] }).endHolders(key)).toBe(true);
  });

  test("processes in the pod's own cgroup, the sandbox and the guest are never its holder's", async () => {
    // A v2 tree: whatever pid stands in those files must not be touched. Ours would end this test.
    for (const directory of ["", "drover", "sandbox99"]) {
      await mkdir(join(root, "kubepods/podc1", directory), { recursive: true });
      await writeFile(join(root, "kubepods/podc1", directory, "cgroup.procs"), `${process.pid}\n`);
    }
    await writeFile(join(root, "cgroup.controllers"), "");
    const status = {
      phase: "Running" as const,
      containerStatuses: [{ name: "holder", ready: true, restartCount: 0, containerID: "containerd://abc123" }],
    };
    expect(await claims({ pods: [pod({ deletionTimestamp }, status)] }).endHolders(key)).toBe(true);
    // In the container's cgroup by the file, but not by what the kernel says of the process.
    await mkdir(join(root, "kubepods/podc1/abc123"));
    await writeFile(join(root, "kubepods/podc1/abc123/cgroup.procs"), `${process.pid}\n`);
    expect(await claims({ pods: [pod({ deletionTimestamp }, status)] }).endHolders(key)).toBe(true);
  });
});
