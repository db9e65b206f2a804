import { describe, expect, test } from "vitest";
import type { StoragePool } from "../crds/pool.ts";
import { silentLogger } from "../kube/index.ts";
import { poolTask, reconcilePool, type PoolParts } from "./pools.ts";

const pool = (over: Partial<StoragePool["spec"]> = {}, metadata: Partial<StoragePool["metadata"]> = {}): StoragePool => ({
  apiVersion: "drover.dev/v1alpha1",
  kind: "StoragePool",
  metadata: { name: "default", uid: "u", resourceVersion: "1", generation: 1, creationTimestamp: "", ...metadata },
  spec: { driver: "btrfs", source: { loop: {} }, ...over },
});
const ssd = { nodeSelector: { matchLabels: { disk: "ssd" } } };

test.each<[string, StoragePool | undefined, Record<string, string> | undefined, string]>([
  ["every node", pool(), {}, "ensure"],
  ["a node with its label", pool(ssd), { disk: "ssd", zone: "a" }, "ensure"],
  ["a node with another value", pool(ssd), { disk: "hdd" }, "remove"],
  ["a pool being deleted", pool({}, { deletionTimestamp: "now" }), {}, "remove"],
  ["no such pool", undefined, {}, "remove"],
  ["a node that is not known", undefined, undefined, "wait"],
])("%s", (_, seen, labels, task) => {
  expect(poolTask(seen, labels)).toBe(task);
});

describe("reconcilePool", () => {
  const run = async (over: Partial<PoolParts> & { here?: string[] }) => {
    const calls: string[] = [];
    const again = await reconcilePool(
      { name: "default" },
      {
        client: { get: () => Promise.resolve(undefined) },
        objects: { get: () => undefined },
        pools: {
          ensure: () => Promise.resolve(void calls.push("ensure")).then(() => ({ name: "default", ready: true })),
          remove: () => Promise.resolve(void calls.push("remove")).then(() => "gone" as const),
          list: () => Promise.resolve(over.here ?? ["default"]),
        },
        node: () => ({ apiVersion: "v1", kind: "Node", metadata: { name: "n1" }, spec: {} }),
        log: silentLogger,
        looked: () => void calls.push("looked"),
        ...over,
      },
      new AbortController().signal,
    );
    return { calls, again };
  };

  test("makes it, and looks again", async () => {
    expect(await run({ objects: { get: () => pool() } })).toEqual({ calls: ["ensure", "looked"], again: { afterMs: 60_000 } });
  });

  test("takes down what the API server says is gone", async () => {
    expect(await run({})).toEqual({ calls: ["remove", "looked"], again: undefined });
  });

  test("keeps what only the cache does not have", async () => {
    expect(await run({ client: { get: () => Promise.resolve(pool() as never) } })).toEqual({
      calls: ["looked"],
      again: { afterMs: 15_000 },
    });
  });

  test("does nothing while its own node is not known", async () => {
    expect((await run({ node: () => undefined })).calls).toEqual([]);
  });
});
