import { beforeEach, describe, expect, it } from "vitest";
import type { Instance } from "../../crds/instance.ts";
import type { Migration } from "../../crds/migration.ts";
import { ApiError, FakeClock, keyText, silentLogger, type Pod } from "../../kube/index.ts";
import { reconcileDrain, type DrainContext } from "./controller.ts";
import { claimFixture, CLAIM, moveFixture, NOW, settled } from "./fixtures.ts";

const KEY = { namespace: "team-a", name: "drover-web-aaaaa" };
const asked = (first: number, last: number) => ({
  "drover.dev/evicted-first": new Date(first).toISOString(),
  "drover.dev/evicted-last": new Date(last).toISOString(),
});

let done: string[];
let pod: Pod | undefined;
let instance: Instance | undefined;
let moves: Migration[];
let refuse: ApiError | undefined;
let there: Migration | undefined;
let ctx: DrainContext;

/** As much of caches and client as the controller asks. */
const world = (): DrainContext => {
  const clock = new FakeClock(NOW);
  const node = {
    apiVersion: "v1",
    kind: "Node",
    metadata: { name: "n1" },
    spec: {},
    status: { conditions: [{ type: "Ready", status: "True" }] },
  };
  const parts = {
    claims: { get: () => pod },
    instances: { get: () => instance },
    migrations: { byIndex: (_: string, key: string) => (key === "team-a/web" ? moves : []) },
    nodes: { get: () => node, hasSynced: true },
    heartbeats: { silence: () => undefined, isBack: () => true },
    clock,
    log: silentLogger,
    events: {
      event: (_: object, type: string, reason: string, __: string, note: string) => void done.push(`${type} ${reason}: ${note}`),
    },
    client: {
      create: async (_: object, object: { metadata: { name: string } }) => {
        if (refuse !== undefined) throw refuse;
        done.push(`create ${object.metadata.name.replace(/[0-9a-f]{8}$/, "#")}`);
      },
      delete: async (_: object, key: { namespace: string; name: string }, options: object) =>
        void done.push(`delete ${keyText(key)} ${JSON.stringify(options)}`),
      get: async () => there,
    },
    deadlineMs: 30 * 60_000,
    told: new Map<string, string>(),
  };
  return parts as unknown as DrainContext;
};

beforeEach(() => {
  done = [];
  pod = claimFixture({ annotations: asked(NOW, NOW) });
  instance = settled();
  moves = [];
  refuse = undefined;
  there = undefined;
  ctx = world();
});

const MOVED = "Normal Draining: its eviction from node n1 was asked for: it is moved to another node first";

describe("an evicted claim", () => {
  it("has its instance moved, and told of once", async () => {
    expect(await reconcileDrain(KEY, ctx)).toEqual({ afterMs: 60_000 });
    await reconcileDrain(KEY, ctx);
    expect(done).toEqual(["create drain-web-#", MOVED, "create drain-web-#"]);
  });

  it("is not moved twice: what is there already was made before", async () => {
    refuse = new ApiError(409, "AlreadyExists", "there");
    there = moveFixture("drain-web-#", {}, { drain: CLAIM });
    await reconcileDrain(KEY, ctx);
    expect(done).toEqual([MOVED]);
  });

  it("says who has taken the name of its Migration", async () => {
    refuse = new ApiError(409, "AlreadyExists", "there");
    there = moveFixture("drain-web-#", {});
    await reconcileDrain(KEY, ctx);
    expect(done[0]).toMatch(/^Warning DrainStuck: .*there is a Migration drain-web-\S+ that is not this drain's; delete it$/);
  });

  it("says what the API server has against its Migration", async () => {
    refuse = new ApiError(403, "Forbidden", "exceeded quota: count/migrations");
    await reconcileDrain(KEY, ctx);
    expect(done[0]).toMatch(/^Warning DrainStuck: .*its Migration was refused: exceeded quota: count\/migrations$/);
  });

  it("is tried again when the API server is away", async () => {
    refuse = new ApiError(500, "InternalError", "etcd");
    await expect(reconcileDrain(KEY, ctx)).rejects.toThrow("etcd");
  });

  it("ends with its whole grace period when its instance is to stop", async () => {
    instance = settled({ spec: { onDrain: "Stop" } });
    await reconcileDrain(KEY, ctx);
    expect(done[0]).toBe(`delete team-a/drover-web-aaaaa {"uid":"${CLAIM}"}`);
  });

  it("warns when its deadline is over", async () => {
    pod = claimFixture({ annotations: asked(NOW - 31 * 60_000, NOW) });
    moves = [moveFixture("drain-web-1", { phase: "CopyingMemory", targetNode: "n2" }, { drain: CLAIM })];
    await reconcileDrain(KEY, ctx);
    expect(done).toEqual([
      "Warning DrainOverdue: its eviction from node n1 was asked for: it is moved to another node first: Migration drain-web-1 moves it to n2; it has been asked to leave for 31 min, longer than drain.deadline: stop it (spec.power: Stopped), or have it shut down (spec.onDrain: Stop)",
    ]);
  });
});

describe("nothing is done for", () => {
  it.each<[string, () => void]>([
    ["a claim that nobody evicts", () => (pod = claimFixture({}))],
    ["a claim that is gone", () => (pod = undefined)],
    ["an evictor that has given up", () => (pod = claimFixture({ annotations: asked(NOW - 120_000, NOW - 61_000) }))],
    ["an Instance that is gone", () => (instance = undefined)],
    ["an Instance of the same name", () => (instance = { ...settled(), metadata: { ...settled().metadata, uid: "other" } })],
    [
      "a claim that the instance has left",
      () => (instance = settled({ status: { claim: { name: "new", serial: 2, uid: "new" } } })),
    ],
  ])("%s", async (_, given) => {
    given();
    expect(await reconcileDrain(KEY, ctx)).toBeUndefined();
    expect(done).toEqual([]);
  });
});
