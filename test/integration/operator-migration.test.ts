/** Moves against a real API server and a real scheduler; the agents act by a script. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MIGRATION_FINALIZER, MIGRATION_LABEL, targetClaimName } from "../../crds/names.ts";
import type { Instance, InstanceSpec } from "../../crds/instance.ts";
import type { Migration, MigrationSpec } from "../../crds/migration.ts";
import { instances, migrations } from "../../crds/resources.ts";
import { resources } from "../../kube/index.ts";
import { instanceFixture } from "../../operator/instance/fixtures.ts";
import { MoveAgents } from "./move-agents.ts";
import {
  NAMESPACE,
  NetworkStandIn,
  NodeStandIn,
  hostSays,
  makeNetwork,
  makeNode,
  makePool,
  startCluster,
  startOperator,
  until,
  type Cluster,
  type RunningOperator,
} from "./operator-kit.ts";

let cluster: Cluster;
let nodes: NodeStandIn;
let agents: MoveAgents;
let network: NetworkStandIn;
let operator: RunningOperator;

const POOLS = [{ name: "local", ready: true }];

beforeAll(async () => {
  cluster = await startCluster();
  await makePool(cluster.client, "local");
  for (const name of ["n1", "n2"]) {
    await makeNode(cluster.client, name, "local", 100);
    await hostSays(cluster.client, name, POOLS);
  }
  await makeNetwork(cluster.client, "blue");
  nodes = new NodeStandIn(cluster);
  agents = new MoveAgents(cluster, nodes);
  await agents.start();
  network = new NetworkStandIn();
  operator = await startOperator(cluster, network);
});

afterAll(async () => {
  await operator?.stop();
  await agents?.stop();
  await nodes?.stop();
  await cluster?.stop();
});

const keyFor = (name: string) => ({ namespace: NAMESPACE, name });
const instanceOf = (name: string) => cluster.seenInstances.get(keyFor(name));
const moveOf = (name: string) => agents.seen.get(keyFor(name));
const condition = (object: Instance | Migration | undefined, type: string) =>
  object?.status?.conditions?.find((one) => one.type === type);
const claimsOf = (name: string) => cluster.seenPods.list().filter((pod) => pod.metadata.ownerReferences?.[0]?.name === name);

async function run(name: string, spec: Partial<InstanceSpec> = {}): Promise<Instance> {
  const { apiVersion, kind, spec: whole } = instanceFixture({ spec });
  await cluster.client.create(instances, { apiVersion, kind, metadata: keyFor(name), spec: whole });
  return until(`${name} is Ready`, cluster.seenInstances, () =>
    condition(instanceOf(name), "Ready")?.status === "True" ? instanceOf(name) : undefined,
  );
}

const move = (name: string, spec: Partial<MigrationSpec> & { instance: string }): Promise<Migration> =>
  cluster.client.create(migrations, {
    apiVersion: "drover.dev/v1alpha1",
    kind: "Migration",
    metadata: keyFor(name),
    spec: { mode: "Live", ...spec },
  });

const phase = (name: string, want: string, reason?: string) =>
  until(`${name} is ${want} ${reason ?? ""}`, agents.seen, () => {
    const found = moveOf(name);
    return found?.status?.phase === want && (reason === undefined || found.status.reason === reason) ? found : undefined;
  });

async function remove(name: string): Promise<void> {
  await cluster.client.delete(instances, keyFor(name));
  await until(`${name} is gone`, cluster.seenInstances, () => instanceOf(name) === undefined);
}

const other = (node: string | undefined) => (node === "n1" ? "n2" : "n1");

describe("a move", () => {
  it("takes a running instance to the other node, and says at each moment where it is", async () => {
    const before = await run("web");
    const from = before.status?.nodeName ?? "";
    const to = other(from);
    const phases: string[] = [];
    const unwatch = agents.seen.onChange(({ now }) => {
      const said = now?.metadata.name === "web-1" ? now.status?.phase : undefined;
      if (said !== undefined && phases.at(-1) !== said) phases.push(said);
    });
    const seenPhases: string[] = [];
    const unseen = cluster.seenInstances.onChange(({ now }) => {
      if (now?.metadata.name !== "web") return;
      const ready = condition(now, "Ready")?.status ?? "";
      const said = `${now.status?.phase} ${ready}`;
      if (seenPhases.at(-1) !== said) seenPhases.push(said);
    });
    agents.hold("web-1", "copy-memory", "switch", "release-source");
    await move("web-1", { instance: "web", target: { node: to }, policy: { maxPause: "500ms" } });
    const copying = await phase("web-1", "CopyingDisk");
    const claimName = targetClaimName("web", copying.metadata.uid, 1);
    const target = claimsOf("web").find((pod) => pod.metadata.name === claimName);
    expect(copying.status).toMatchObject({
      instanceUid: before.metadata.uid,
      sourceNode: from,
      targetNode: to,
      sourceClaim: { name: before.status?.claim?.name, uid: before.status?.claim?.uid },
      targetClaim: { name: claimName, uid: target?.metadata.uid },
      disks: [{ name: "root", sourcePool: "local", targetPool: "local", sizeBytes: 1024 ** 3, copy: true }],
      policy: { maxPauseMs: 500, onStall: "Throttle", timeoutMs: 21_600_000, tls: true },
      handover: { attempt: 1, state: "Copying" },
    });
    expect(copying.metadata.finalizers).toEqual([MIGRATION_FINALIZER]);
    expect(target?.metadata.labels).toMatchObject({ "drover.dev/claim": "web", [MIGRATION_LABEL]: "web-1" });
    expect(target?.spec.containers[0]?.resources?.requests).toMatchObject({ "drover.dev/pool.local": "1" });
    await until("the instance says so", cluster.seenInstances, () => instanceOf("web")?.status?.phase === "Migrating");
    expect(network.ports.get(before.metadata.uid)).toBe(`${from},${to}`);
    expect(instanceOf("web")?.status?.migration).toEqual({ name: "web-1", uid: copying.metadata.uid });

    agents.release("web-1", "copy-memory");
    await phase("web-1", "SwitchingOver", "SwitchingOver");
    agents.release("web-1", "switch");
    const arrived = await until("the instance is at the target", cluster.seenInstances, () =>
      instanceOf("web")?.status?.nodeName === to ? instanceOf("web") : undefined,
    );
    expect(arrived.status?.claim).toEqual({
      name: claimName,
      uid: target?.metadata.uid,
      node: to,
      serial: 2,
      countsDisks: true,
    });
    await until("the guest is taken up", cluster.seenInstances, () => instanceOf("web")?.status?.phase === "Running");
    expect(network.ports.get(before.metadata.uid)).toBe(to);
    // Until the source has let go of everything, its claim stays.
    expect(claimsOf("web")).toHaveLength(2);
    agents.release("web-1");
    const ended = await phase("web-1", "Succeeded", "Moved");
    expect(condition(ended, "Ready")).toMatchObject({
      status: "True",
      message: `moved from ${from} to ${to}, guest paused 79 ms`,
    });
    const noted = await until("the instance keeps it", cluster.seenInstances, () =>
      instanceOf("web")?.status?.lastMigration === undefined ? undefined : instanceOf("web"),
    );
    expect(noted.status?.lastMigration).toMatchObject({ name: "web-1", phase: "Succeeded", from, to, pause: "79 ms" });
    expect(noted.status?.migration).toBeUndefined();
    await until("the old claim is gone", cluster.seenPods, () => claimsOf("web").length === 1);
    expect(claimsOf("web")[0]?.metadata.labels?.[MIGRATION_LABEL]).toBeUndefined();
    await until("its finalizer is gone", agents.seen, () => moveOf("web-1")?.metadata.finalizers === undefined);
    unwatch();
    unseen();
    expect(phases).toEqual(["Pending", "Preparing", "CopyingDisk", "CopyingMemory", "SwitchingOver", "Succeeded"]);
    expect(seenPhases).toEqual(["Running True", "Migrating True", "Running True"]);
    expect([...nodes.failures, ...agents.failures]).toEqual([]);
  });

  it("goes back, and the instance remembers both; then it is stopped, and deleted", async () => {
    await move("web-2", { instance: "web" });
    await phase("web-2", "Succeeded");
    const { lastMigration, earlierMigrations, claim } =
      (
        await until("the instance keeps it", cluster.seenInstances, () =>
          instanceOf("web")?.status?.lastMigration?.name === "web-2" ? instanceOf("web") : undefined,
        )
      ).status ?? {};
    expect([lastMigration?.name, ...(earlierMigrations ?? []).map(({ name }) => name)]).toEqual(["web-2", "web-1"]);
    expect(claim?.serial).toBe(3);
    await cluster.client.patchMerge<Instance>(instances, keyFor("web"), { spec: { power: "Stopped" } });
    await until("it is stopped", cluster.seenInstances, () => instanceOf("web")?.status?.phase === "Stopped");
    expect(instanceOf("web")?.status?.claim).toMatchObject({ serial: 4 });
    expect(instanceOf("web")?.status?.claim?.countsDisks).toBeUndefined();
    await remove("web");
    const events = await cluster.client.list(resources.events, { namespace: NAMESPACE });
    const told = events
      .filter(({ regarding }) => regarding?.kind === "Instance" && regarding.name === "web")
      .map(({ reason }) => reason);
    expect(told).toContain("MigrationSucceeded");
    expect([...nodes.failures, ...agents.failures]).toEqual([]);
  });
});
