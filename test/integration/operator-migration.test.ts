/** Moves against a real API server and a real scheduler; the agents act by a script. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MIGRATION_FINALIZER, MIGRATION_LABEL, targetClaimName } from "../../crds/names.ts";
import type { Instance } from "../../crds/instance.ts";
import { instances } from "../../crds/resources.ts";
import { migrationSettings } from "../../operator/migration/settings.ts";
import { conditionOf, keyFor, MoveWorld, otherThan } from "./move-kit.ts";
import { startOperator, until, type RunningOperator } from "./operator-kit.ts";

let world: MoveWorld;
const quick = { ...migrationSettings("{}"), backoff: { firstMs: 100, mostMs: 1000 } };
let operator: RunningOperator;

beforeAll(async () => {
  world = await MoveWorld.start("n1", "n2");
  operator = await startOperator(world.cluster, world.network);
});

afterAll(async () => {
  await operator?.stop();
  await world?.stop();
});

describe("a move", () => {
  it("takes a running instance to the other node, and says at each moment where it is", async () => {
    const before = await world.run("web");
    const from = before.status?.nodeName ?? "";
    const to = otherThan(from);
    const phases: string[] = [];
    const unwatch = world.agents.seen.onChange(({ now }) => {
      const said = now?.metadata.name === "web-1" ? now.status?.phase : undefined;
      if (said !== undefined && phases.at(-1) !== said) phases.push(said);
    });
    const seenPhases: string[] = [];
    const unseen = world.cluster.seenInstances.onChange(({ now }) => {
      if (now?.metadata.name !== "web") return;
      const ready = conditionOf(now, "Ready")?.status ?? "";
      const said = `${now.status?.phase} ${ready}`;
      if (seenPhases.at(-1) !== said) seenPhases.push(said);
    });
    world.agents.hold("web-1", "copy-memory", "write-handover", "switch", "release-source");
    await world.begin("web-1", { instance: "web", target: { node: to }, policy: { maxPause: "500ms" } });
    const copying = await world.phase("web-1", "CopyingDisk");
    const claimName = targetClaimName("web", copying.metadata.uid, 1);
    const target = world.claims("web").find((pod) => pod.metadata.name === claimName);
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
    await until("the instance says so", world.cluster.seenInstances, () => world.instance("web")?.status?.phase === "Migrating");
    expect(world.network.ports.get(before.metadata.uid)).toBe(`${from},${to}`);
    expect(world.instance("web")?.status?.migration).toEqual({ name: "web-1", uid: copying.metadata.uid });

    world.agents.release("web-1", "copy-memory");
    await world.phase("web-1", "CopyingMemory", "CopyingMemory");
    world.agents.release("web-1", "write-handover");
    await world.phase("web-1", "SwitchingOver", "SwitchingOver");
    world.agents.release("web-1", "switch");
    const arrived = await until("the instance is at the target", world.cluster.seenInstances, () =>
      world.instance("web")?.status?.nodeName === to ? world.instance("web") : undefined,
    );
    expect(arrived.status?.claim).toEqual({
      name: claimName,
      uid: target?.metadata.uid,
      node: to,
      serial: 2,
      countsDisks: true,
    });
    await until("the guest is taken up", world.cluster.seenInstances, () => world.instance("web")?.status?.phase === "Running");
    expect(world.network.ports.get(before.metadata.uid)).toBe(to);
    // Until the source has let go of everything, its claim stays.
    expect(world.claims("web")).toHaveLength(2);
    world.agents.release("web-1");
    const ended = await world.phase("web-1", "Succeeded", "Moved");
    expect(conditionOf(ended, "Ready")).toMatchObject({
      status: "True",
      message: `moved from ${from} to ${to}, guest paused 79 ms`,
    });
    const noted = await until("the instance keeps it", world.cluster.seenInstances, () =>
      world.instance("web")?.status?.lastMigration === undefined ? undefined : world.instance("web"),
    );
    expect(noted.status?.lastMigration).toMatchObject({ name: "web-1", phase: "Succeeded", from, to, pause: "79 ms" });
    expect(noted.status?.migration).toBeUndefined();
    await until("the old claim is gone", world.cluster.seenPods, () => world.claims("web").length === 1);
    expect(world.claims("web")[0]?.metadata.labels?.[MIGRATION_LABEL]).toBeUndefined();
    await until("its finalizer is gone", world.agents.seen, () => world.move("web-1")?.metadata.finalizers === undefined);
    unwatch();
    unseen();
    expect(phases).toEqual(["Pending", "Preparing", "CopyingDisk", "CopyingMemory", "SwitchingOver", "Succeeded"]);
    expect(seenPhases).toEqual(["Running True", "Migrating True", "Running True"]);
    expect(world.failures).toEqual([]);
  });

  it("goes back, and the instance remembers both; then it is stopped, and deleted", async () => {
    await world.begin("web-2", { instance: "web" });
    await world.phase("web-2", "Succeeded");
    const { lastMigration, earlierMigrations, claim } =
      (
        await until("the instance keeps it", world.cluster.seenInstances, () =>
          world.instance("web")?.status?.lastMigration?.name === "web-2" ? world.instance("web") : undefined,
        )
      ).status ?? {};
    expect([lastMigration?.name, ...(earlierMigrations ?? []).map(({ name }) => name)]).toEqual(["web-2", "web-1"]);
    expect(claim?.serial).toBe(3);
    await world.cluster.client.patchMerge<Instance>(instances, keyFor("web"), { spec: { power: "Stopped" } });
    await until("it is stopped", world.cluster.seenInstances, () => world.instance("web")?.status?.phase === "Stopped");
    expect(world.instance("web")?.status?.claim).toMatchObject({ serial: 4 });
    expect(world.instance("web")?.status?.claim?.countsDisks).toBeUndefined();
    await world.remove("web");
    await expect.poll(() => world.eventsOf("Instance", "web")).toContain("Normal MigrationSucceeded");
    expect(world.failures).toEqual([]);
  });
});

describe("an operator that is killed at every write", () => {
  /** A move there, by operators that die at their nth write, the first one of which at `killAt`; false when the first one lived. */
  async function liveThrough(name: string, killAt: number, attempts: number): Promise<boolean> {
    let current = await startOperator(world.cluster, world.network, { killBeforeWrite: killAt, migration: quick });
    let died = false;
    let over = false;
    const takeOver = current.killed.then(async () => {
      // One that dies of the last of its writes while it is stopped is followed by nobody.
      if (over) return;
      died = true;
      await current.stop();
      current = await startOperator(world.cluster, world.network, { migration: quick });
    });
    const targets = new Set<string>();
    const unwatch = world.cluster.seenPods.onChange(() => {
      for (const pod of world.targetClaims("hunted")) targets.add(pod.metadata.uid ?? "");
    });
    const from = world.instance("hunted")?.status?.nodeName;
    const { metadata } = await world.begin(name, { instance: "hunted" });
    try {
      await world.phase(name, "Succeeded");
      const after = await world.whenInstance(
        "hunted",
        "runs at the target",
        ({ status }) => status?.lastMigration?.name === name && status.phase === "Running" && status.migration === undefined,
      );
      await until("one claim is left", world.cluster.seenPods, () => world.claims("hunted").length === 1);
      await until("its finalizer is gone", world.agents.seen, () => world.move(name)?.metadata.finalizers === undefined);
      expect({ node: after.status?.nodeName, port: world.network.ports.get(after.metadata.uid), targets: targets.size }).toEqual({
        node: otherThan(from),
        port: otherThan(from),
        targets: attempts,
      });
      expect(world.move(name)?.metadata.uid ?? metadata.uid).toBe(metadata.uid);
    } finally {
      unwatch();
      over = true;
      if (died) await takeOver;
      await current.stop();
    }
    return died;
  }

  it.each([
    ["brings the move to the same end, by one target only", 1],
    ["brings it to the same end by a second attempt, which has one target of its own", 2],
  ])("%s", async (_, attempts) => {
    await world.run("hunted");
    await operator.stop();
    let kills = 0;
    for (let more = true; more; ) {
      const name = `hunted-${attempts}-${kills}`;
      const failure = { reason: "DiskFull", message: "the pool is full", retryable: true };
      if (attempts > 1) world.agents.failing.set(`${name}/1`, { side: "target", ...failure });
      more = await liveThrough(name, kills, attempts);
      if (more) kills += 1;
    }
    expect(kills).toBeGreaterThan(10);
    operator = await startOperator(world.cluster, world.network);
    await world.remove("hunted");
    expect(world.failures).toEqual([]);
  });
});
