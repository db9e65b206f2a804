/** Moves that are deleted at any step, and nodes that are removed from the cluster during one. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { migrations } from "../../crds/resources.ts";
import { resources } from "../../kube/index.ts";
import { migrationSettings } from "../../operator/migration/settings.ts";
import type { Step } from "./move-agents.ts";
import { conditionOf, keyFor, MoveWorld, otherThan } from "./move-kit.ts";
import { startOperator, until, type RunningOperator } from "./operator-kit.ts";

let world: MoveWorld;
let operator: RunningOperator;

beforeAll(async () => {
  world = await MoveWorld.start("n1", "n2");
  const migration = { ...migrationSettings('{"retries": 1}'), backoff: { firstMs: 100, mostMs: 1000 } };
  operator = await startOperator(world.cluster, world.network, { migration });
});
afterAll(async () => {
  await operator?.stop();
  await world?.stop();
});
afterEach(() => world.assertWell());

const gone = (name: string) => until(`${name} is gone`, world.agents.seen, () => world.move(name) === undefined);

describe("a Migration that is deleted", () => {
  it.each<[string, Step, string]>([
    ["while the target has not taken it up", "prepare", "Preparing"],
    ["while the target prepares", "ready", "Preparing"],
    ["while the disks are copied", "copy-memory", "CopyingDisk"],
    ["right before the switchover", "write-handover", "CopyingMemory"],
  ])("%s is cancelled first, and the instance keeps the answer", async (_, step, phase) => {
    const name = `deleted-${step}`;
    const before = await world.run(name);
    world.agents.hold(name, step);
    await world.begin(name, { instance: name });
    await until(`${name} has begun`, world.agents.seen, () => world.move(name)?.status?.handover !== undefined);
    await world.phase(name, phase);
    await world.cluster.client.delete(migrations, keyFor(name));
    await gone(name);
    await world.isAsBefore(before);
    expect(world.instance(name)?.status?.lastMigration).toMatchObject({ name, phase: "Cancelled", reason: "Cancelled" });
    expect(world.network.ports.get(before.metadata.uid)).toBe(before.status?.nodeName);
    await world.remove(name);
  });

  it.each<[string, Step]>([
    ["in the switchover", "switch"],
    ["while the target has not said that it runs", "write-done"],
    ["while the source clears away", "release-source"],
  ])("%s stays until the guest has arrived, which the instance keeps", async (_, step) => {
    const name = `late-${step}`;
    const before = await world.run(name);
    world.agents.hold(name, step);
    await world.begin(name, { instance: name });
    await world.phase(name, "SwitchingOver");
    await world.cluster.client.delete(migrations, keyFor(name));
    await until("it is being deleted", world.agents.seen, () => world.move(name)?.metadata.deletionTimestamp !== undefined);
    world.agents.release(name);
    await gone(name);
    const after = await world.whenInstance(name, "has arrived", ({ status }) => status?.lastMigration?.name === name);
    expect(after.status).toMatchObject({
      nodeName: otherThan(before.status?.nodeName),
      lastMigration: { phase: "Succeeded", reason: "TooLate" },
    });
    await until("one claim is left", world.cluster.seenPods, () => world.claims(name).length === 1);
    await world.remove(name);
  });
});

describe("a node that is removed from the cluster", () => {
  const removeNode = async (name: string): Promise<void> => {
    world.nodes.silent.add(name);
    await world.cluster.client.delete(resources.nodes, { name });
  };
  const bringBack = async (name: string): Promise<void> => {
    world.nodes.silent.delete(name);
    await world.addNode(name);
    world.agents.lookAgain();
  };

  it("as the target while memory is copied: the guest runs on, and the move says that there is no such node", async () => {
    const before = await world.run("no-target");
    const to = otherThan(before.status?.nodeName);
    world.agents.hold("no-target", "write-handover");
    await world.begin("no-target", { instance: "no-target", target: { node: to } });
    await world.phase("no-target", "CopyingMemory");
    await removeNode(to);
    const ended = await world.phase("no-target", "Failed", "NodeNotFound");
    expect(conditionOf(ended, "Ready")?.message).toBe(`target.node: there is no Node ${to}; see kubectl get nodes`);
    await world.whenInstance(
      "no-target",
      "runs on",
      ({ status }) => status?.phase === "Running" && status.migration === undefined,
    );
    // Kubernetes ends pods of nodes that are gone; here it is the node that is back.
    await bringBack(to);
    await world.isAsBefore(before);
    await world.remove("no-target");
  });

  it("as the source while memory is copied: the guest was there, and the move ends in words", async () => {
    const before = await world.run("no-source");
    const from = before.status?.nodeName ?? "";
    world.agents.hold("no-source", "write-handover");
    await world.begin("no-source", { instance: "no-source" });
    await world.phase("no-source", "CopyingMemory");
    await removeNode(from);
    const ended = await world.phase("no-source", "Failed");
    expect(conditionOf(ended, "Ready")?.message).toContain(from);
    const lost = await world.whenInstance("no-source", "says so", ({ status }) => status?.phase === "Unknown");
    expect(lost.status).toMatchObject({ nodeName: from, reason: "NodeGone" });
    await world.remove("no-source");
    await bringBack(from);
  });
});
