/** A new runtime on its way under all guests, against a real API server and scheduler; each node's agent acts by a script. */
import { readFile } from "node:fs/promises";
import path from "node:path";
import { execa } from "execa";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Instance } from "../../crds/instance.ts";
import { rolloutName } from "../../crds/names.ts";
import { instances, rollouts } from "../../crds/resources.ts";
import { binariesDirectory } from "../../hack/control-plane/index.ts";
import { resources } from "../../kube/index.ts";
import { migrationSettings } from "../../operator/migration/settings.ts";
import { runtimeUpdateSettings } from "../../operator/rollout/settings.ts";
import { conditionOf, keyFor } from "./move-kit.ts";
import { startOperator, until, writesOf, type RunningOperator } from "./operator-kit.ts";
import { UpdateWorld } from "./update-kit.ts";

let world: UpdateWorld;
let operator: RunningOperator | undefined;
const NODES = ["n1", "n2"];
const NAMES = ["a", "b", "c", "d", "e"];
const migration = { ...migrationSettings('{"retries": 0}'), backoff: { firstMs: 100, mostMs: 1000 } };

/** The operator with these chart values, instead of the one before. */
async function withValues(values: object): Promise<void> {
  await operator?.stop();
  const updates = runtimeUpdateSettings(JSON.stringify(values));
  operator = await startOperator(world.moves.cluster, world.moves.network, { migration, updates });
}
/** Every node gets this runtime, beside the one that it had. */
const upgrade = async (from: string, to: string): Promise<void> => {
  for (const node of NODES) await world.hasRuntimes(node, from, to);
};
const runtimes = (): (string | undefined)[] => NAMES.map((name) => world.moves.instance(name)?.status?.guest?.runtimeVersion);
const all = (version: string) =>
  until(`all run in ${version}`, world.moves.cluster.seenInstances, () => runtimes().every((one) => one === version));
const complete = (name: string) =>
  world.whenRollout(name, "is complete", ({ status }) => status?.phase === "Complete" && status.progress === "5/5");

/** Minutes from now, as the chart's values have it. */
const clock = (minutes: number): string => new Date(Date.now() + minutes * 60_000).toISOString().slice(11, 16);

beforeAll(async () => {
  world = await UpdateWorld.start(...NODES);
  for (const node of NODES) await world.hasRuntimes(node, "r1");
  await withValues({ perNode: 1, perCluster: 1 });
  for (const name of NAMES) await world.moves.run(name);
});
afterAll(async () => {
  await operator?.stop();
  await world?.stop();
});
afterEach(() => world.assertWell());

describe("a roll-out", () => {
  it("is complete where guests started in it", async () => {
    const first = await complete("r1");
    expect(first.status).toMatchObject({ reason: "AllUpdated", updated: 5, total: 5, failed: 0, runtime: "r1" });
    expect(world.made("r1")).toEqual([]);
  });

  it("updates all instances of all nodes, one after the other, and shows how far it is", async () => {
    expect(new Set(NAMES.map((name) => world.moves.instance(name)?.status?.nodeName)).size).toBe(2);
    const progress: string[] = [];
    const unwatch = world.rollouts.onChange(({ now }) => {
      const said = now?.metadata.name === "r2" ? `${now.status?.phase} ${now.status?.progress}` : undefined;
      if (said !== undefined && progress.at(-1) !== said) progress.push(said);
    });
    await upgrade("r1", "r2");
    await all("r2");
    const done = await complete("r2");
    unwatch();
    expect(world.most).toEqual({ cluster: 1, node: 1 });
    expect(progress.at(-1)).toBe("Complete 5/5");
    expect(progress.some((one) => /^Rolling [0-4]\/[1-5]$/.test(one))).toBe(true);
    expect(done.status?.conditions?.map(({ type, status }) => `${type}=${status}`)).toEqual(["Complete=True", "Stopped=False"]);
    const made = world.made("r2");
    expect(made.map(({ spec }) => spec.instance).sort()).toEqual(NAMES);
    expect(made[0]).toMatchObject({
      metadata: { labels: { "drover.dev/rollout": "r2" }, ownerReferences: [{ kind: "Instance" }] },
      spec: { mode: "InPlace", runtime: "r2", priority: "Rebalance" },
    });
    await world.moves.whenInstance("a", "says so", (one: Instance) => conditionOf(one, "RuntimeCurrent")?.reason === "Current");
    // At most once a second while it rolls, and nothing once it is over.
    const writes = await writesOf(world.moves.cluster, "drover-operator", /^r2$/);
    expect(writes.length).toBeLessThan(15);
  });

  it("begins as many at once as there are slots, on each node and in all", async () => {
    await withValues({ perNode: 2, perCluster: 3 });
    world.most = { cluster: 0, node: 0 };
    await upgrade("r2", "r3");
    await complete("r3");
    expect(world.most.node).toBeLessThanOrEqual(2);
    expect(world.most.cluster).toBeLessThanOrEqual(3);
    expect(world.most.cluster).toBeGreaterThan(1);
  });

  it("is forgotten when others have taken its place, but for the last", async () => {
    await upgrade("r3", "r4");
    await complete("r4");
    await until("the first is gone", world.rollouts, () => world.rollout("r1") === undefined);
    expect(
      world.rollouts
        .list()
        .map(({ metadata }) => metadata.name)
        .sort(),
    ).toEqual(["r2", "r3", "r4"]);
    expect(world.rollout("r3")?.status).toMatchObject({ phase: "Complete", progress: "5/5" });
  });

  it("has a name where its version is none", async () => {
    await upgrade("r4", "R_5");
    const name = rolloutName("R_5");
    const done = await complete(name);
    expect([done.status?.runtime, world.made(name).length]).toEqual(["R_5", 5]);
  });
});

describe("a failed update", () => {
  it("stops it, in a condition and an event; a new spec.resumedAt goes on", async () => {
    await withValues({ perNode: 1, perCluster: 1 });
    for (const name of NAMES) world.failing.set(name, { reason: "StartFailed", message: "the new QEMU ended", retryable: false });
    await upgrade("R_5", "r6");
    const stopped = await world.whenRollout("r6", "is stopped", ({ status }) => status?.phase === "Stopped");
    expect(stopped.status).toMatchObject({ reason: "UpdateFailed", progress: "0/5", failed: 1 });
    expect(stopped.status?.message).toMatch(
      /^the update of team-a\/[a-e] failed: the new QEMU ended \(Migration team-a\/update-[a-e]-[0-9a-f]{8}\); look at it, then go on: kubectl patch drollout r6 /,
    );
    expect(stopped.status?.conditions?.find(({ type }) => type === "Stopped")).toMatchObject({
      status: "True",
      reason: "UpdateFailed",
    });
    const events = async (): Promise<string[]> => {
      const found = await world.client.list(resources.events, {});
      return found
        .filter(({ regarding }) => regarding?.kind === "Rollout" && regarding.name === "r6")
        .map(({ type, reason }) => `${type} ${reason}`);
    };
    await expect.poll(events).toContain("Warning UpdateFailed");
    expect(world.made("r6")).toHaveLength(1);
    // The guest runs on in what it ran in.
    expect(runtimes()).toEqual(NAMES.map(() => "R_5"));
    await withValues({ perNode: 1, perCluster: 1 });
    await new Promise((resolve) => setTimeout(resolve, 700));
    expect(world.made("r6")).toHaveLength(1);

    world.failing.clear();
    await world.change("r6", { resumedAt: "2026-01-01T00:00:00Z" });
    const done = await complete("r6");
    expect(done.status).toMatchObject({ failed: 0, resumedAt: "2026-01-01T00:00:00Z" });
    expect(world.made("r6")).toHaveLength(6);
  });

  it("is also one whose guest dies in the new QEMU at once", async () => {
    for (const name of NAMES) world.dying.add(name);
    await upgrade("r6", "d1");
    const stopped = await world.whenRollout("d1", "is stopped", ({ status }) => status?.phase === "Stopped");
    expect(stopped.status?.message).toMatch(
      /failed: the guest ended when the new QEMU on node n[12] had taken it over; it was started again/,
    );
    expect(world.made("d1").map(({ status }) => `${status?.phase} ${status?.reason}`)).toEqual(["Failed GuestEnded"]);
    world.dying.clear();
    await upgrade("d1", "r6");
    await complete("r6");
  });

  it("of what cannot be updated is none: it is left as it is, and named", async () => {
    world.failing.set("c", { reason: "NoRoomInClaim", message: "its claim lacks 30 MiB", retryable: false });
    await upgrade("r6", "r7");
    const done = await world.whenRollout(
      "r7",
      "has nothing left",
      ({ status }) => status?.phase === "Complete" && status.progress === "4/5",
    );
    expect(done.status).toMatchObject({ reason: "NothingLeft", failed: 0 });
    expect(done.status?.message).toContain("4 of 5 instances run in it; left as they are: team-a/c (its claim lacks 30 MiB");
    world.failing.clear();
  });
});

describe("what holds it up", () => {
  it("is spec.paused, with what has not begun taken back", async () => {
    await withValues({ perNode: 1, perCluster: 4 });
    const { client } = world;
    await client.create(rollouts, {
      apiVersion: "drover.dev/v1alpha1",
      kind: "Rollout",
      metadata: { name: "r8" },
      spec: { paused: true },
    });
    await upgrade("r7", "r8");
    const paused = await world.whenRollout("r8", "is paused", ({ status }) => status?.reason === "Paused" && status.total === 5);
    expect(paused.status).toMatchObject({ phase: "Waiting", progress: "0/5" });
    expect(world.made("r8")).toEqual([]);
    // The slots of both nodes are taken by people, so that what it makes has to wait.
    const onBoth = NODES.map((node) => NAMES.find((name) => world.moves.instance(name)?.status?.nodeName === node) ?? "");
    for (const name of onBoth) {
      world.hold(`hold-${name}`, "handover");
      await world.update(`hold-${name}`, { instance: name });
      await world.moves.phase(`hold-${name}`, "Preparing");
    }
    await world.change("r8", { paused: false });
    const waiting = await until("one waits", world.moves.agents.seen, () =>
      world.made("r8").find(({ status }) => status?.reason === "WaitingForSlot"),
    );
    await world.change("r8", { paused: true });
    await until("it is taken back", world.moves.agents.seen, () =>
      world.made("r8").every(({ metadata }) => metadata.uid !== waiting.metadata.uid),
    );
    for (const name of onBoth) world.release(`hold-${name}`);
    await world.change("r8", { paused: false });
    await complete("r8");
  });

  it("is a window that is closed", async () => {
    await withValues({ window: { start: clock(120), end: clock(180) } });
    await upgrade("r8", "r9");
    const closed = await world.whenRollout(
      "r9",
      "waits",
      ({ status }) => status?.reason === "WindowClosed" && status.total === 5,
    );
    expect(closed.status).toMatchObject({ phase: "Waiting", progress: "0/5" });
    expect(closed.status?.message).toMatch(/^updates begin between ..:.. and ..:.. UTC; 0 of 5 instances run in it$/);
    expect(world.made("r9")).toEqual([]);
    await withValues({ window: { start: clock(-120), end: clock(120) } });
    await complete("r9");
  });

  it("is Manual: Migrations are people's, and it shows how far they are", async () => {
    await withValues({ mode: "Manual" });
    await upgrade("r9", "r10");
    await world.whenRollout("r10", "waits for people", ({ status }) => status?.reason === "Manual" && status.total === 5);
    await world.update("by-hand", { instance: "a" });
    await world.moves.phase("by-hand", "Succeeded", "Updated");
    await world.whenRollout("r10", "has seen it", ({ status }) => status?.progress === "1/5");
    expect(world.made("r10")).toEqual([]);
    // The rest by the command that the page for users has.
    for (const name of NAMES)
      await world.client.patchMerge<Instance>(instances, keyFor(name), { metadata: { labels: { tier: "web" } } });
    const page = await readFile(path.join(import.meta.dirname, "../../docs/updates.md"), "utf8");
    const command = /^```sh\n(.*?)^```$/ms.exec(page)?.[1] ?? "";
    const env = {
      KUBECONFIG: world.moves.cluster.plane.kubeconfig,
      PATH: `${binariesDirectory()}:${process.env["PATH"] ?? ""}`,
    };
    const { stdout } = await execa("bash", ["-c", command], { env });
    expect(stdout.split("\n").sort()).toEqual(
      NAMES.map((name) => expect.stringMatching(new RegExp(`^migration.drover.dev/update-${name}-[a-z0-9]{5} created$`))),
    );
    expect((await complete("r10")).status).toMatchObject({ phase: "Complete", reason: "AllUpdated" });
  });

  it("is Off: there is none at all", async () => {
    await withValues({ mode: "Off" });
    await until("those that were are gone", world.rollouts, () => world.rollouts.list().length === 0);
    await upgrade("r10", "r11");
    await world.moves.whenInstance(
      "a",
      "is outdated",
      (one: Instance) => conditionOf(one, "RuntimeCurrent")?.reason === "Outdated",
    );
    expect(world.rollouts.list()).toEqual([]);
    expect(runtimes()).toEqual(NAMES.map(() => "r10"));
  });
});

describe("an operator that is killed at every write", () => {
  it("brings it to the same end, without a second update of anything", async () => {
    let kills = 0;
    let from = "r11";
    await operator?.stop();
    operator = undefined;
    for (let more = true; more; kills += 1) {
      const to = `k${kills}`;
      const updates = runtimeUpdateSettings('{"perNode": 2}');
      let current = await startOperator(world.moves.cluster, world.moves.network, {
        killBeforeWrite: kills * 8,
        migration,
        updates,
      });
      let died = false;
      let over = false;
      const takeOver = current.killed.then(async () => {
        if (over) return;
        died = true;
        await current.stop();
        current = await startOperator(world.moves.cluster, world.moves.network, { migration, updates });
      });
      await upgrade(from, to);
      await complete(to);
      over = true;
      if (died) await takeOver;
      await current.stop();
      expect(world.made(to)).toHaveLength(5);
      from = to;
      more = died;
    }
    expect(kills).toBeGreaterThan(5);
  });
});
