/** A new QEMU in place, against a real API server and scheduler; each node's agent acts by a script. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Instance } from "../../crds/instance.ts";
import type { Migration, MigrationStatus } from "../../crds/migration.ts";
import { instances, migrations } from "../../crds/resources.ts";
import { migrationSettings } from "../../operator/migration/settings.ts";
import { runtimeUpdateSettings } from "../../operator/rollout/settings.ts";
import { serveEvictions } from "./drain-kit.ts";
import { conditionOf, keyFor, otherThan } from "./move-kit.ts";
import { nodeReady, startOperator, until, type RunningOperator } from "./operator-kit.ts";
import { UpdateWorld, type UpdateStep } from "./update-kit.ts";

let world: UpdateWorld;
let operator: RunningOperator;
const migration = { ...migrationSettings('{"retries": 1}'), backoff: { firstMs: 100, mostMs: 1000 } };
const updates = runtimeUpdateSettings('{"mode": "Off", "perNode": 1}');

beforeAll(async () => {
  world = await UpdateWorld.start("n1", "n2");
  for (const node of ["n1", "n2"]) await world.hasRuntimes(node, "r1");
  operator = await startOperator(world.moves.cluster, world.moves.network, { migration, updates });
});
afterAll(async () => {
  await operator?.stop();
  await world?.stop();
});
afterEach(() => world.assertWell());

/** An instance that runs in r1, on a node whose current runtime is r2 from then on. */
async function outdated(name: string): Promise<Instance> {
  for (const node of ["n1", "n2"]) await world.hasRuntimes(node, "r1");
  await world.moves.run(name);
  for (const node of ["n1", "n2"]) await world.hasRuntimes(node, "r1", "r2");
  return runtimeIs(name, "Outdated");
}

const messageOf = (one: Migration): string | undefined => conditionOf(one, "Ready")?.message;
const runtimeIs = (name: string, reason: string): Promise<Instance> =>
  world.moves.whenInstance(name, `RuntimeCurrent is ${reason}`, (one) => conditionOf(one, "RuntimeCurrent")?.reason === reason);

const endOf = (name: string, phase: string) =>
  world.moves.whenInstance(
    name,
    `keeps ${phase}`,
    ({ status }) => status?.lastMigration?.phase === phase && status.migration === undefined,
  );

describe("an update", () => {
  it("replaces QEMU in the same claim, and the instance runs all the time", async () => {
    const before = await outdated("web");
    const node = before.status?.nodeName;
    const phases: string[] = [];
    const unwatch = world.moves.agents.seen.onChange(({ now }) => {
      const said = now?.metadata.name === "web-up" ? now.status?.phase : undefined;
      if (said !== undefined && phases.at(-1) !== said) phases.push(said);
    });
    const seen = new Set<string>();
    const unseen = world.moves.cluster.seenInstances.onChange(({ now }) => {
      if (now?.metadata.name === "web") seen.add(`${now.status?.phase} ${conditionOf(now, "Ready")?.status}`);
    });
    world.hold("web-up", "handover", "switch", "release");
    await world.update("web-up", { instance: "web", policy: { maxPause: "50ms" } });
    const preparing = await until("the agent is at it", world.moves.agents.seen, () =>
      world.moves.move("web-up")?.status?.source === undefined ? undefined : world.moves.move("web-up"),
    );
    const claim = { name: before.status?.claim?.name, uid: before.status?.claim?.uid };
    expect(preparing.status).toMatchObject({
      phase: "Preparing",
      instanceUid: before.metadata.uid,
      sourceNode: node,
      targetNode: node,
      sourceClaim: claim,
      targetClaim: claim,
      disks: [],
      policy: { maxPauseMs: 50, timeoutMs: 120_000 },
      runtime: { from: { version: "r1", qemu: "10.0.2" }, to: { version: "r2", qemu: "10.0.13" } },
      handover: { attempt: 1, state: "Copying" },
    });
    const during = await runtimeIs("web", "Updating");
    expect(during.status?.migration).toMatchObject({ name: "web-up" });
    world.release("web-up", "handover");
    await world.moves.phase("web-up", "SwitchingOver", "SwitchingOver");
    world.release("web-up", "switch");
    await world.moves.phase("web-up", "SwitchingOver", "Releasing");
    world.release("web-up");
    const ended = await world.moves.phase("web-up", "Succeeded", "Updated");
    expect(conditionOf(ended, "Ready")).toMatchObject({
      status: "True",
      message: `QEMU was replaced on node ${node}, from runtime r1 (QEMU 10.0.2) to runtime r2 (QEMU 10.0.13), guest paused 9 ms`,
    });
    const after = await endOf("web", "Succeeded");
    expect(after.status).toMatchObject({
      claim: before.status?.claim,
      nodeName: node,
      lastMigration: { name: "web-up", reason: "Updated", from: node, to: node, pause: "9 ms" },
    });
    expect((await runtimeIs("web", "Current")).status?.guest).toMatchObject({ runtimeVersion: "r2", qemuVersion: "10.0.13" });
    expect(world.moves.claims("web")).toHaveLength(1);
    expect(world.moves.network.ports.get(before.metadata.uid)).toBe(node);
    await until(
      "its finalizer is gone",
      world.moves.agents.seen,
      () => world.moves.move("web-up")?.metadata.finalizers === undefined,
    );
    unwatch();
    unseen();
    expect(phases).toEqual(["Pending", "Preparing", "SwitchingOver", "Succeeded"]);
    expect([...seen]).toEqual(["Running True"]);
    await expect.poll(() => world.moves.eventsOf("Instance", "web")).toContain("Normal MigrationSucceeded");
    const events = await world.moves.eventsOf("Migration", "web-up");
    expect(events).toEqual(expect.arrayContaining(["Normal Preparing", "Normal SwitchingOver", "Normal Succeeded"]));
  });

  it("goes back to an older runtime of the node that is asked for, and has nothing to do where it is current", async () => {
    await world.update("web-back", { instance: "web", runtime: "r1" });
    await world.moves.phase("web-back", "Succeeded", "Updated");
    expect((await runtimeIs("web", "Outdated")).status?.guest?.runtimeVersion).toBe("r1");
    await world.update("web-same", { instance: "web", runtime: "r1" });
    const same = await world.moves.phase("web-same", "Succeeded", "AlreadyCurrent");
    expect(same.status?.handover).toBeUndefined();
    expect(conditionOf(same, "Ready")?.message).toMatch(/^the guest runs in runtime r1 \(QEMU 10.0.2\) of node n[12] already$/);
    await world.moves.remove("web");
  });
});

describe("cancelled", () => {
  it.each<[string, UpdateStep, (status: MigrationStatus) => boolean]>([
    ["before anybody has taken it up", "prepare", ({ handover }) => handover !== undefined],
    ["while the new QEMU is prepared", "ready", ({ target }) => target?.state === "Preparing"],
    ["while the new QEMU waits", "handover", ({ source }) => source?.state === "Waiting"],
  ])("%s it leaves all as it was, and the next one works", async (_, step, isThere) => {
    const name = `cancel-${step}`;
    const before = await outdated(name);
    world.hold(`${name}-1`, step);
    await world.update(`${name}-1`, { instance: name });
    await until("it has come so far", world.moves.agents.seen, () => isThere(world.moves.move(`${name}-1`)?.status ?? {}));
    await world.moves.cancel(`${name}-1`);
    const ended = await world.moves.phase(`${name}-1`, "Cancelled", "Cancelled");
    expect([messageOf(ended), ended.status?.handover?.state]).toEqual(["it was cancelled", "Source"]);
    await world.moves.isAsBefore(before);
    await world.update(`${name}-2`, { instance: name });
    await world.moves.phase(`${name}-2`, "Succeeded", "Updated");
    await world.moves.remove(name);
  });

  it("in the switchover is too late, and says so", async () => {
    await outdated("late");
    world.hold("late-1", "switch");
    await world.update("late-1", { instance: "late" });
    await world.moves.phase("late-1", "SwitchingOver");
    await world.moves.cancel("late-1");
    const waiting = await world.moves.phase("late-1", "SwitchingOver", "TooLate");
    expect(messageOf(waiting)).toContain("too late to give it up (it was cancelled)");
    world.release("late-1");
    const ended = await world.moves.phase("late-1", "Succeeded", "TooLate");
    expect(messageOf(ended)).toContain("guest paused 9 ms; it was cancelled too late");
    await world.moves.remove("late");
  });

  it("by stopping the instance, which then stops", async () => {
    await outdated("halt");
    world.hold("halt-1", "ready");
    await world.update("halt-1", { instance: "halt" });
    await until("it has begun", world.moves.agents.seen, () => world.moves.move("halt-1")?.status?.handover !== undefined);
    await world.moves.change("halt", { power: "Stopped" });
    const ended = await world.moves.phase("halt-1", "Cancelled", "InstanceStopped");
    expect(messageOf(ended)).toBe("instance halt was stopped");
    await world.moves.whenInstance("halt", "is stopped", ({ status }) => status?.phase === "Stopped");
    await world.moves.remove("halt");
  });

  it("by deleting the instance, which then goes", async () => {
    await outdated("gone");
    world.hold("gone-1", "ready");
    await world.update("gone-1", { instance: "gone" });
    await until("it has begun", world.moves.agents.seen, () => world.moves.move("gone-1")?.status?.handover !== undefined);
    await world.moves.remove("gone");
    const ended = await world.moves.phase("gone-1", "Cancelled", "InstanceDeleted");
    expect(messageOf(ended)).toBe("instance gone was deleted");
  });
});

describe("what cannot be", () => {
  it("an unknown runtime, named with those that are there", async () => {
    const { status } = await outdated("odd");
    await world.update("odd-1", { instance: "odd", runtime: "r9" });
    const ended = await world.moves.phase("odd-1", "Failed", "RuntimeNotFound");
    expect(conditionOf(ended, "Ready")?.message).toBe(`runtime: node ${status?.nodeName} has no runtime r9; it has r1, r2`);
  });

  it("a guest whose QEMU cannot be replaced, which its condition says beforehand", async () => {
    await world.says("odd", { updateBlockers: ["it was started with huge pages"] });
    const blocked = await runtimeIs("odd", "UpdateBlocked");
    expect(conditionOf(blocked, "RuntimeCurrent")?.message).toContain("huge pages; move it to another node");
    await world.update("odd-2", { instance: "odd" });
    const ended = await world.moves.phase("odd-2", "Failed", "UpdateBlocked");
    expect(ended.status?.handover).toBeUndefined();
    await world.says("odd", { updateBlockers: null as never });
    await runtimeIs("odd", "Outdated");
  });

  const noRoom = { reason: "NoRoomInClaim", message: "its claim lacks 30 MiB for a second QEMU", retryable: false };
  const limit = (): string | undefined => world.moves.claims("odd")[0]?.spec.containers[0]?.resources?.limits?.["memory"];

  it("a claim without room that is not given more, with the way out", async () => {
    const before = limit();
    world.failing.set("odd", noRoom);
    world.moves.nodes.noMemory = true;
    await world.update("odd-3", { instance: "odd" });
    const ended = await world.moves.phase("odd-3", "Failed", "NoRoomInClaim");
    const message = conditionOf(ended, "Ready")?.message;
    expect(message).toContain("or restart it (a new spec.restartedAt)");
    expect(message).toContain("the claim could not be given more: the kubelet refuses it: Node didn't have enough memory");
    await expect.poll(limit).toBe(before);
    world.moves.nodes.noMemory = false;
  });

  it("a claim without room grows, and is tried once more", async () => {
    const [before, pod] = [Number(limit()), world.moves.claims("odd")[0]?.metadata.uid];
    world.hold("odd-5", "give-up");
    await world.update("odd-5", { instance: "odd" });
    await world.moves.phase("odd-5", "Pending", "GivingUp");
    world.failing.delete("odd");
    world.release("odd-5");
    const ended = await world.moves.phase("odd-5", "Succeeded", "Updated");
    const grown = before + 64 * 2 ** 20;
    expect(ended.status).toMatchObject({
      retries: 1,
      handover: { attempt: 2, state: "Done" },
      claimGrowth: { attempt: 1, fromBytes: before, toBytes: grown },
    });
    await expect.poll(() => Number(limit())).toBe(grown);
    expect(world.moves.claims("odd").map(({ metadata }) => metadata.uid)).toEqual([pod]);
    await world.update("odd-6", { instance: "odd", runtime: "r1" });
    const back = await world.moves.phase("odd-6", "Succeeded", "Updated");
    expect(back.status?.claimGrowth).toBeUndefined();
  });

  it("what can pass is tried again", async () => {
    world.failing.set("odd", { reason: "StartFailed", message: "no memory just now", retryable: true });
    world.hold("odd-4", "give-up");
    await world.update("odd-4", { instance: "odd" });
    await world.moves.phase("odd-4", "Pending", "GivingUp");
    world.failing.delete("odd");
    world.release("odd-4");
    const ended = await world.moves.phase("odd-4", "Succeeded", "Updated");
    expect(ended.status).toMatchObject({ retries: 1, handover: { attempt: 2, state: "Done" } });
    await world.moves.remove("odd");
  });
});

describe("waiting", () => {
  it("for a node whose agent says nothing, before and while it is under way", async () => {
    const { status } = await outdated("quiet");
    const node = status?.nodeName ?? "";
    const silent = async (is: boolean): Promise<void> => {
      if (is) world.moves.nodes.silent.add(node);
      else world.moves.nodes.silent.delete(node);
      await nodeReady(world.client, node, !is);
    };
    await silent(true);
    await world.moves.whenInstance("quiet", "is Unknown", (one) => one.status?.phase === "Unknown");
    await world.update("quiet-1", { instance: "quiet" });
    const waiting = await world.moves.phase("quiet-1", "Pending", "NodeNotReady");
    expect(messageOf(waiting)).toContain(`the guest cannot be updated now: node ${node} is not ready`);
    world.hold("quiet-1", "ready");
    await silent(false);
    await world.moves.phase("quiet-1", "Preparing");
    await silent(true);
    await until("it says so", world.moves.agents.seen, () =>
      conditionOf(world.moves.move("quiet-1"), "Ready")?.message.includes(`waits for node ${node} is not ready`),
    );
    await silent(false);
    world.release("quiet-1");
    await world.moves.phase("quiet-1", "Succeeded", "Updated");
    await world.moves.remove("quiet");
  });

  it("for a slot of its node, one after the other", async () => {
    // Of three on two nodes two share one.
    const names = ["slot-a", "slot-b", "slot-c"];
    const where: string[] = [];
    for (const name of names) where.push((await outdated(name)).status?.nodeName ?? "");
    const node = where.find((one, i) => where.indexOf(one) !== i) ?? "";
    const [a = "", b = ""] = names.filter((_, i) => where[i] === node);
    world.hold("slot-1", "handover");
    await world.update("slot-1", { instance: a });
    await world.moves.phase("slot-1", "Preparing");
    await world.update("slot-2", { instance: b });
    const waiting = await world.moves.phase("slot-2", "Pending", "WaitingForSlot");
    expect(conditionOf(waiting, "Ready")?.message).toBe(
      `waits for a slot on node ${node}: 1 of 1 updates are under way there now`,
    );
    world.release("slot-1");
    await world.moves.phase("slot-2", "Succeeded", "Updated");
    for (const name of names) await world.moves.remove(name);
  });

  it("for a move of the same instance, after which it is current; and a move waits for it", async () => {
    const before = await outdated("both");
    world.moves.agents.hold("both-move", "write-handover");
    await world.moves.begin("both-move", { instance: "both", target: { node: otherThan(before.status?.nodeName) } });
    await world.moves.phase("both-move", "CopyingMemory");
    await world.update("both-up", { instance: "both" });
    const waiting = await world.moves.phase("both-up", "Pending", "WaitingForMigration");
    expect(conditionOf(waiting, "Ready")?.message).toContain("both-move");
    world.moves.agents.release("both-move");
    await world.moves.phase("both-up", "Succeeded", "AlreadyCurrent");
    world.hold("both-back", "handover");
    await world.update("both-back", { instance: "both", runtime: "r1" });
    await world.moves.phase("both-back", "Preparing");
    await world.moves.begin("both-home", { instance: "both" });
    await world.moves.phase("both-home", "Pending", "WaitingForMigration");
    world.release("both-back");
    await world.moves.phase("both-home", "Succeeded", "Moved");
    await world.moves.remove("both");
  });
});

describe("an eviction", () => {
  it("waits for an update that has begun, in a sentence, and is what follows it", async () => {
    const before = await outdated("leaves");
    const evictions = await serveEvictions(world.moves.cluster);
    try {
      world.hold("leaves-up", "handover");
      await world.update("leaves-up", { instance: "leaves" });
      await until("it has begun", world.moves.agents.seen, () => world.moves.move("leaves-up")?.status?.source !== undefined);
      const evict = () => evictions.evict(before.status?.claim?.name ?? "");
      await expect
        .poll(evict, { timeout: 20_000, interval: 250 })
        .toContain("instance leaves has its QEMU replaced just now, by Migration leaves-up; its eviction goes on after that");
      await world.moves.whenInstance("leaves", "says so", (one) => conditionOf(one, "Draining")?.reason === "Updating");
      expect(world.moves.agents.seen.list().filter(({ spec }) => spec.instance === "leaves")).toHaveLength(1);
      world.release("leaves-up");
      await world.moves.phase("leaves-up", "Succeeded", "Updated");
      const after = await world.moves.whenInstance(
        "leaves",
        "has left",
        ({ status }) => status?.nodeName !== before.status?.nodeName,
      );
      expect(after.status?.nodeName).toBe(otherThan(before.status?.nodeName));
    } finally {
      await evictions.stop();
    }
  });
});

describe("an operator that is killed at every write", () => {
  it("brings an update to the same end", async () => {
    await outdated("hunted");
    await operator.stop();
    let kills = 0;
    for (let more = true; more; kills += 1) {
      const runtime = kills % 2 === 0 ? "r2" : "r1";
      const name = `hunted-${kills}`;
      let current = await startOperator(world.moves.cluster, world.moves.network, { killBeforeWrite: kills, migration, updates });
      let died = false;
      let over = false;
      const takeOver = current.killed.then(async () => {
        if (over) return;
        died = true;
        await current.stop();
        current = await startOperator(world.moves.cluster, world.moves.network, { migration, updates });
      });
      await world.update(name, { instance: "hunted", runtime });
      await world.moves.phase(name, "Succeeded", "Updated");
      const after = await endOf("hunted", "Succeeded");
      await until(
        "its finalizer is gone",
        world.moves.agents.seen,
        () => world.moves.move(name)?.metadata.finalizers === undefined,
      );
      over = true;
      if (died) await takeOver;
      await current.stop();
      expect([after.status?.claim?.serial, world.moves.claims("hunted").length]).toEqual([1, 1]);
      more = died;
    }
    expect(kills).toBeGreaterThan(5);
    operator = await startOperator(world.moves.cluster, world.moves.network, { migration, updates });
    await world.client.delete(instances, keyFor("hunted"));
    expect(await world.client.list(migrations, { namespace: "team-a" })).not.toEqual([]);
  });
});
