/** How moves end that do not simply succeed: cancelled, refused, failed, tried again, undecided. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Migration } from "../../crds/migration.ts";
import { instances, migrations } from "../../crds/resources.ts";
import { resources, type Node } from "../../kube/index.ts";
import { migrationSettings } from "../../operator/migration/settings.ts";
import type { Step } from "./move-agents.ts";
import { conditionOf, keyFor, MoveWorld, otherThan } from "./move-kit.ts";
import { nodeReady, startOperator, until, type RunningOperator } from "./operator-kit.ts";

let world: MoveWorld;
let operator: RunningOperator;
const settings = {
  ...migrationSettings('{"history": {"count": 3}, "parallel": {"outPerNode": 1}, "retries": 2}'),
  backoff: { firstMs: 100, mostMs: 1000 },
};

beforeAll(async () => {
  world = await MoveWorld.start("n1", "n2");
  operator = await startOperator(world.cluster, world.network, { migration: settings });
});
afterAll(async () => {
  await operator?.stop();
  await world?.stop();
});
afterEach(() => world.assertWell());

const messageOf = (move: Migration | undefined) => conditionOf(move, "Ready")?.message ?? "";
const taint = (name: string, taints: Node["spec"]["taints"]) =>
  world.cluster.client.patchMerge<Node>(resources.nodes, { name }, { spec: { taints } });
const cordon = (name: string, unschedulable: boolean | null) =>
  world.cluster.client.patchMerge<Node>(resources.nodes, { name }, { spec: { unschedulable } });

/** A node that someone made sure of: it runs nothing any more. */
async function fence(name: string): Promise<void> {
  world.nodes.silent.add(name);
  await nodeReady(world.cluster.client, name, false);
  await taint(name, [{ key: "node.kubernetes.io/out-of-service", effect: "NoExecute", value: "nodeshutdown" }]);
}

async function unfence(name: string): Promise<void> {
  await nodeReady(world.cluster.client, name, true);
  world.nodes.silent.delete(name);
  world.agents.lookAgain();
}

describe("cancelling", () => {
  it.each<[string, Step, string]>([
    ["while the target has not taken it up", "prepare", "Preparing"],
    ["while the target prepares", "ready", "Preparing"],
    ["while the disks are copied", "copy-memory", "CopyingDisk"],
    ["while the memory is copied", "write-handover", "CopyingMemory"],
  ])("%s leaves everything as it was", async (_, step, phase) => {
    const name = `cancel-${step}`;
    const before = await world.run(name);
    world.agents.hold(name, step);
    await world.begin(name, { instance: name });
    await until(`${name} has begun`, world.agents.seen, () => world.move(name)?.status?.handover !== undefined);
    await world.phase(name, phase);
    await world.cancel(name);
    const ended = await world.phase(name, "Cancelled", "Cancelled");
    expect(ended.status).toMatchObject({ handover: { attempt: 1, state: "Source" } });
    expect(messageOf(ended)).toBe("it was cancelled");
    await world.isAsBefore(before);
    expect(world.instance(name)?.status?.lastMigration).toMatchObject({ name, phase: "Cancelled" });
    expect(world.network.ports.get(before.metadata.uid)).toBe(before.status?.nodeName);
    await world.remove(name);
  });

  it("after the switchover has begun is too late, and says so", async () => {
    const before = await world.run("late");
    world.agents.hold("late", "switch");
    await world.begin("late", { instance: "late" });
    await world.phase("late", "SwitchingOver");
    await world.cancel("late");
    const waiting = await world.phase("late", "SwitchingOver", "TooLate");
    expect(messageOf(waiting)).toContain("too late to give it up (it was cancelled)");
    world.agents.release("late");
    const ended = await world.phase("late", "Succeeded", "TooLate");
    const to = otherThan(before.status?.nodeName);
    expect(messageOf(ended)).toBe(
      `moved from ${before.status?.nodeName} to ${to}, guest paused 79 ms; it was cancelled too late`,
    );
    await world.remove("late");
  });

  it("by deletion leaves the answer with the instance", async () => {
    const before = await world.run("deleted");
    world.agents.hold("deleted", "write-handover");
    const { metadata } = await world.begin("deleted", { instance: "deleted" });
    await world.phase("deleted", "CopyingMemory");
    await world.cluster.client.delete(migrations, keyFor("deleted"));
    await until("it is gone", world.agents.seen, () => world.move("deleted") === undefined);
    await world.isAsBefore(before);
    expect(world.instance("deleted")?.status?.lastMigration).toMatchObject({ uid: metadata.uid, phase: "Cancelled" });
    await expect.poll(() => world.eventsOf("Instance", "deleted")).toContain("Normal MigrationCancelled");
    await world.remove("deleted");
  });

  it("waits until both nodes have cleared away", async () => {
    const before = await world.run("slow");
    world.agents.hold("slow", "write-handover", "release-target", "give-up-source");
    await world.begin("slow", { instance: "slow" });
    await world.phase("slow", "CopyingMemory");
    await world.cancel("slow");
    const waiting = await world.phase("slow", "Pending", "GivingUp");
    expect(messageOf(waiting)).toContain(`waits until node ${before.status?.nodeName} has cleared it away`);
    expect(world.targetClaims("slow")).toHaveLength(1);
    world.agents.release("slow", "give-up-source");
    await until("the target is waited for", world.agents.seen, () =>
      messageOf(world.move("slow")).includes(`waits until node ${otherThan(before.status?.nodeName)} has cleared it away`),
    );
    world.agents.release("slow");
    await world.phase("slow", "Cancelled");
    await world.remove("slow");
  });

  it("while it waits ends it at once", async () => {
    await world.run("idle");
    await cordon("n1", true);
    await cordon("n2", true);
    try {
      await world.begin("idle", { instance: "idle" });
      await world.phase("idle", "Pending", "Unschedulable");
      await world.cancel("idle");
      expect(messageOf(await world.phase("idle", "Cancelled"))).toBe("it was cancelled before it had begun");
      await until("its claim is gone", world.cluster.seenPods, () => world.claims("idle").length === 1);
    } finally {
      await cordon("n1", null);
      await cordon("n2", null);
    }
    await world.remove("idle");
  });
});

describe("an instance that is wanted otherwise while it moves", () => {
  it("is stopped after the move was given up", async () => {
    const before = await world.run("off");
    world.agents.hold("off", "write-handover");
    await world.begin("off", { instance: "off" });
    await world.phase("off", "CopyingMemory");
    await world.change("off", { power: "Stopped" });
    await world.phase("off", "Cancelled", "InstanceStopped");
    const stopped = await world.whenInstance("off", "is stopped", ({ status }) => status?.phase === "Stopped");
    expect(stopped.status?.nodeName).toBe(before.status?.nodeName);
    await until("no claim is left", world.cluster.seenPods, () => world.claims("off").length === 0);
    await world.remove("off");
  });

  it("is stopped at the target where it was too late", async () => {
    const before = await world.run("off-late");
    world.agents.hold("off-late", "switch");
    await world.begin("off-late", { instance: "off-late" });
    await world.phase("off-late", "SwitchingOver");
    await world.change("off-late", { power: "Stopped" });
    await world.phase("off-late", "SwitchingOver", "TooLate");
    world.agents.release("off-late");
    await world.phase("off-late", "Succeeded");
    const stopped = await world.whenInstance("off-late", "is stopped", ({ status }) => status?.phase === "Stopped");
    expect(stopped.status?.nodeName).toBe(otherThan(before.status?.nodeName));
    await world.remove("off-late");
  });

  it.each<[string, Step, string]>([
    ["before the switchover", "write-handover", "CopyingMemory"],
    ["in the switchover", "switch", "SwitchingOver"],
    ["after it", "release-source", "SwitchingOver"],
  ])("is deleted %s, and nothing of it is left", async (_, step, phase) => {
    const name = `gone-${step}`;
    const { metadata } = await world.run(name);
    world.agents.hold(name, step);
    await world.begin(name, { instance: name });
    await world.phase(name, phase);
    if (step === "release-source")
      await world.whenInstance(name, "has arrived", ({ status }) => status?.claim?.countsDisks === true);
    await world.cluster.client.delete(instances, keyFor(name));
    if (step !== "write-handover") {
      await world.whenInstance(name, "waits for its move", (one) => conditionOf(one, "Ready")?.reason === "Migrating");
      world.agents.release(name);
    }
    await until(`${name} is gone`, world.cluster.seenInstances, () => world.instance(name) === undefined);
    expect(world.claims(name)).toEqual([]);
    expect(world.network.ports.has(metadata.uid)).toBe(false);
    expect(["Cancelled", "Succeeded"]).toContain((world.move(name) ?? { status: { phase: "Cancelled" } }).status?.phase);
  });
});

describe("what cannot be moved", () => {
  it("is told at once", async () => {
    const { status } = await world.run("fixed");
    const here = status?.nodeName ?? "";
    const cases: [string, Partial<Migration["spec"]>, string, string][] = [
      [
        "here",
        { target: { node: here } },
        "TargetIsPresentNode",
        `instance fixed runs on node ${here} already; name another node, or none`,
      ],
      ["nowhere", { target: { node: "n9" } }, "NodeNotFound", "target.node: there is no Node n9; see kubectl get nodes"],
      [
        "no-pool",
        { target: { pool: "gold" } },
        "PoolNotFound",
        "target.pool: there is no StoragePool gold; make it, or name another one",
      ],
    ];
    for (const [name, spec, reason, message] of cases) {
      await world.begin(name, { instance: "fixed", ...spec });
      const ended = await world.phase(name, "Failed", reason);
      expect(messageOf(ended)).toBe(message);
      await until("its finalizer is gone", world.agents.seen, () => world.move(name)?.metadata.finalizers === undefined);
    }
    await world.change("fixed", { power: "Stopped" });
    await world.whenInstance("fixed", "is stopped", (one) => one.status?.phase === "Stopped");
    await world.begin("stopped", { instance: "fixed" });
    await world.phase("stopped", "Failed", "InstanceStopped");
    await world.remove("fixed");
  });

  it("waits for an instance that is made in the same moment", async () => {
    await world.begin("early", { instance: "early" });
    expect(messageOf(await world.phase("early", "Pending", "InstanceNotFound"))).toBe(
      "there is no Instance early in namespace team-a",
    );
    await world.run("early");
    await world.phase("early", "Succeeded");
    await world.remove("early");
  });

  it("waits for a node that is cordoned, and goes when it is not", async () => {
    const { status } = await world.run("patient");
    const to = otherThan(status?.nodeName);
    await cordon(to, true);
    await world.begin("patient", { instance: "patient", target: { node: to } });
    expect(messageOf(await world.phase("patient", "Pending", "TargetCordoned"))).toContain(`kubectl uncordon ${to}`);
    expect(world.targetClaims("patient")).toEqual([]);
    await cordon(to, null);
    await world.phase("patient", "Succeeded");
    await world.remove("patient");
  });

  it("says in the scheduler's own words that there is no room", async () => {
    await world.run("labelled");
    await world.begin("labelled", { instance: "labelled", target: { nodeSelector: { disk: "nvme" } } });
    const waiting = await world.phase("labelled", "Pending", "Unschedulable");
    expect(messageOf(waiting)).toMatch(/^no node has room for it: 0\/2 nodes are available/);
    await world.remove("labelled");
    await world.phase("labelled", "Cancelled", "InstanceDeleted");
  });
});

describe("order", () => {
  it("two of one instance: the second waits for the first, and names it", async () => {
    await world.run("twice");
    world.agents.hold("twice-1", "write-handover");
    await world.begin("twice-1", { instance: "twice" });
    await world.phase("twice-1", "CopyingMemory");
    await world.begin("twice-2", { instance: "twice" });
    const waiting = await world.phase("twice-2", "Pending", "WaitingForMigration");
    expect(messageOf(waiting)).toBe("waits for the end of the Migration twice-1 of the same instance");
    world.agents.release("twice-1");
    await world.phase("twice-1", "Succeeded");
    await world.phase("twice-2", "Succeeded");
    await world.remove("twice");
  });

  it("one that waits for a slot says on which node, and a drain comes first", async () => {
    const names = ["slot-1", "slot-2", "slot-3"];
    await cordon("n2", true);
    for (const name of names) await world.run(name);
    await cordon("n2", null);
    const began: string[] = [];
    const unwatch = world.agents.seen.onChange(({ now }) => {
      const name = now?.metadata.name ?? "";
      if (names.includes(name) && now?.status?.handover !== undefined && !began.includes(name)) began.push(name);
    });
    world.agents.hold("slot-1", "write-handover");
    await world.begin("slot-1", { instance: "slot-1" });
    await world.phase("slot-1", "CopyingMemory");
    await world.begin("slot-2", { instance: "slot-2", priority: "Rebalance" });
    const waiting = await world.phase("slot-2", "Pending", "WaitingForSlot");
    expect(messageOf(waiting)).toBe("waits for a slot on node n1: 1 of 1 moves leave it now");
    await world.begin("slot-3", { instance: "slot-3", priority: "Drain" });
    await world.phase("slot-3", "Pending", "WaitingForSlot");
    world.agents.release("slot-1");
    for (const name of names) await world.phase(name, "Succeeded");
    unwatch();
    expect(began).toEqual(["slot-1", "slot-3", "slot-2"]);
    for (const name of names) await world.remove(name);
  });

  it("keeps as many that have ended as the chart says", async () => {
    await world.run("often");
    for (const n of [1, 2, 3, 4, 5]) {
      await world.begin(`often-${n}`, { instance: "often" });
      await world.phase(`often-${n}`, "Succeeded");
    }
    const kept = () =>
      world.agents.seen
        .list()
        .map(({ metadata }) => metadata.name)
        .filter((name) => name.startsWith("often"))
        .sort();
    await until("old ones are deleted", world.agents.seen, () => kept().length === 3);
    expect(kept()).toEqual(["often-3", "often-4", "often-5"]);
    const noted = await world.whenInstance("often", "keeps them", ({ status }) => status?.lastMigration?.name === "often-5");
    const { lastMigration, earlierMigrations } = noted.status ?? {};
    expect([lastMigration, ...(earlierMigrations ?? [])].map((one) => one?.name)).toEqual(
      [5, 4, 3, 2, 1].map((n) => `often-${n}`),
    );
    await world.remove("often");
  });
});

describe("an attempt that fails", () => {
  const failure = { reason: "DiskFull", message: "pool local of the node is full", retryable: true };

  it.each(["target", "source"] as const)("at the %s is followed by another, where it can pass", async (side) => {
    const name = `again-${side}`;
    const before = await world.run(name);
    world.agents.failing.set(`${name}/1`, { side, ...failure });
    await world.begin(name, { instance: name });
    const ended = await world.phase(name, "Succeeded");
    expect(ended.status).toMatchObject({ retries: 1, handover: { attempt: 2, state: "Done" } });
    await world.whenInstance(name, "has arrived", ({ status }) => status?.nodeName === otherThan(before.status?.nodeName));
    await until("one claim is left", world.cluster.seenPods, () => world.claims(name).length === 1);
    await world.remove(name);
  });

  it("ends the move when it cannot pass", async () => {
    const before = await world.run("hopeless");
    world.agents.failing.set("hopeless/1", { side: "target", ...failure, retryable: false });
    await world.begin("hopeless", { instance: "hopeless" });
    expect(messageOf(await world.phase("hopeless", "Failed", "DiskFull"))).toBe(failure.message);
    await world.isAsBefore(before);
    await expect.poll(() => world.eventsOf("Instance", "hopeless")).toContain("Warning MigrationFailed");
    await world.remove("hopeless");
  });

  it("ends the move when it was the last one", async () => {
    const before = await world.run("worn");
    for (const n of [1, 2, 3]) world.agents.failing.set(`worn/${n}`, { side: "source", ...failure });
    await world.begin("worn", { instance: "worn" });
    const ended = await world.phase("worn", "Failed", "DiskFull");
    expect(messageOf(ended)).toBe(`${failure.message} (the last of 3 attempts)`);
    await world.isAsBefore(before);
    await world.remove("worn");
  });
});

describe("a node that dies", () => {
  it("as the target while memory is copied: the guest runs on, and the move ends", async () => {
    const before = await world.run("dead-target");
    const to = otherThan(before.status?.nodeName);
    world.agents.hold("dead-target", "write-handover");
    await world.begin("dead-target", { instance: "dead-target", target: { node: to } });
    await world.phase("dead-target", "CopyingMemory");
    await fence(to);
    const ended = await world.phase("dead-target", "Failed", "NodeOutOfService");
    expect(ended.status?.conditions?.find(({ type }) => type === "Ready")?.message).toContain(
      `node ${to} was put out of service`,
    );
    await unfence(to);
    await world.isAsBefore(before);
    await world.remove("dead-target");
  });

  it.each(["Source", "Target"] as const)(
    "as the target after the guest may have run there: spec.keep %s decides",
    async (keep) => {
      const name = `undecided-${keep.toLowerCase()}`;
      const before = await world.run(name);
      const [from, to] = [before.status?.nodeName ?? "", otherThan(before.status?.nodeName)];
      world.agents.hold(name, "write-done");
      await world.begin(name, { instance: name, target: { node: to } });
      await world.phase(name, "SwitchingOver");
      await until("the source has let go", world.agents.seen, () => world.move(name)?.status?.source?.state === "Completed");
      // As the source's agent does when its peer does not answer.
      await world.cluster.client.patchJson(
        migrations,
        keyFor(name),
        [{ op: "replace", path: "/status/handover", value: { attempt: 1, state: "Target" } }],
        { subresource: "status" },
      );
      await fence(to);
      const asked = await world.phase(name, "SwitchingOver", "NeedsDecision");
      await world.whenInstance(
        name,
        "runs nowhere",
        ({ status }) => status?.phase === "Unknown" && status.reason === "NeedsDecision",
      );
      expect(conditionOf(asked, "NeedsDecision")).toMatchObject({ status: "True", reason: "TargetDied" });
      await expect.poll(() => world.eventsOf("Migration", name)).toContain("Warning NeedsDecision");
      await world.cluster.client.patchMerge<Migration>(migrations, keyFor(name), { spec: { keep } });
      if (keep === "Source") {
        await world.phase(name, "Failed");
        await world.whenInstance(
          name,
          "runs where it was",
          ({ status }) => status?.phase === "Running" && status.nodeName === from,
        );
        await unfence(to);
        await until("one claim is left", world.cluster.seenPods, () => world.claims(name).length === 1);
      } else {
        await world.phase(name, "SwitchingOver", "WaitingForNode");
        await unfence(to);
        await world.phase(name, "Succeeded");
        await world.whenInstance(name, "runs there", ({ status }) => status?.phase === "Running");
      }
      await world.remove(name);
    },
  );
});
