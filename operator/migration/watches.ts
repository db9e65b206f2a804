/** What makes a Migration, or the instance that it is about, worth another look; by index, never by a scan. */
import { MIGRATION_LABEL } from "../../crds/names.ts";
import type { Host } from "../../crds/host.ts";
import type { Instance } from "../../crds/instance.ts";
import type { Migration } from "../../crds/migration.ts";
import {
  Controller,
  findCondition,
  keyOf,
  keyText,
  ownerKeys,
  sameStatus,
  type Change,
  type Node,
  type ObjectKey,
  type Pod,
} from "../../kube/index.ts";
import type { OperatorContext } from "../context.ts";
import { claimSeen } from "../instance/facts.ts";
import { answersDifferently } from "../nodes.ts";
import { hasEnded } from "./attempt.ts";
import type { UpdateLimits } from "./in-place/policy.ts";
import { reconcileMigration } from "./reconcile.ts";
import { Stopwatches, type MoveContext } from "./scope.ts";
import type { MigrationSettings } from "./settings.ts";
import { Turns, type Held, type Words } from "./turns.ts";

/** What an instance's reconcile reads of a Migration; what the agents count as they copy is not in it. */
const forInstance = (migration: Migration | undefined): unknown => {
  if (migration === undefined) return undefined;
  const { phase, reason, handover, instanceUid, sourceClaim, targetClaim, retries, source, endedAt } = migration.status ?? {};
  const { uid } = migration.metadata;
  return { uid, phase, reason, handover, instanceUid, sourceClaim, targetClaim, retries, source: source?.state, endedAt };
};

/** Instances that a change of a Migration concerns. */
export function movedInstances({ old, now }: Change<Migration>): ObjectKey[] {
  if (sameStatus(forInstance(old), forInstance(now))) return [];
  const one = now ?? old;
  return one === undefined ? [] : [{ namespace: one.metadata.namespace, name: one.spec.instance }];
}

/** What of a Host decides whether a guest can go there. */
const suitability = (host: Host | undefined): unknown => {
  const { accelerator, machineTypes, cpuModel, qemuVersion, pools = [], conditions } = host?.status ?? {};
  const ready = findCondition(conditions, "Ready");
  const places = pools.map((pool) => [pool.name, pool.ready, pool.message]);
  return { accelerator, machineTypes, cpuModel, qemuVersion, places, ready: [ready?.status, ready?.message] };
};

/** Whether a Host says the same of its runtimes; how many instances run in each is another matter. */
export const sameRuntimes = (old: Host | undefined, now: Host | undefined): boolean => {
  const of = (host: Host | undefined) => {
    const { runtimes = [], runtimeVersion, qemuVersion } = host?.status ?? {};
    const what = runtimes.map(({ version, current, qemuVersion: qemu, machineTypes }) => ({
      version,
      current,
      qemu,
      machineTypes,
    }));
    return { what, runtimeVersion, qemuVersion };
  };
  return sameStatus(of(old), of(now));
};

/** Those that have their turn, without those whose claim no node has room for: they hold up nobody. */
function heldTurns(ctx: OperatorContext): Held[] {
  return ctx.migrations.byIndex("turn", "move").flatMap((cached) => {
    const migration = ctx.recentMigrations.get(keyOf(cached)) ?? cached;
    const { sourceNode, targetNode, targetClaim } = migration.status ?? {};
    if (hasEnded(migration) || targetClaim === undefined || sourceNode === undefined) return [];
    const pod = ctx.recentClaims.get({ namespace: migration.metadata.namespace, name: targetClaim.name });
    if (pod !== undefined && claimSeen(pod).unscheduled !== undefined && pod.spec.nodeName === undefined) return [];
    const target = targetNode ?? migration.spec.target?.node;
    return [{ uid: migration.metadata.uid, source: sourceNode, target }];
  });
}

/** Updates that have their turn. */
const heldUpdates = (ctx: OperatorContext): Held[] =>
  ctx.migrations.byIndex("turn", "update").flatMap((cached) => {
    const migration = ctx.recentMigrations.get(keyOf(cached)) ?? cached;
    const source = migration.status?.sourceNode;
    return hasEnded(migration) || source === undefined ? [] : [{ uid: migration.metadata.uid, source }];
  });

const UPDATES: Words = { leave: "updates are under way there now", underWay: "updates are under way now" };

/** The controller of Migrations, wired to its sources; not started. */
export function migrationController(
  operator: OperatorContext,
  { moves, updates }: { moves: MigrationSettings; updates: UpdateLimits },
): Controller {
  const { perNode: outPerNode, perCluster } = updates;
  const updateLimits = { outPerNode, inPerNode: Number.POSITIVE_INFINITY, perCluster };
  const ctx: MoveContext = {
    ...operator,
    moves,
    updates,
    updateTurns: new Turns(updateLimits, () => heldUpdates(operator), UPDATES),
    turns: new Turns(moves.parallel, () => heldTurns(operator)),
    stopwatches: new Stopwatches(operator.clock),
    wake: (key) => controller.enqueue(key),
  };
  const keys = (found: Migration[]): ObjectKey[] => found.map(keyOf);
  const ofInstance = (key: ObjectKey): ObjectKey[] => keys(ctx.migrations.byIndex("instance", keyText(key)));
  const onNode = (name: string): ObjectKey[] => keys(ctx.migrations.byIndex("node", name));
  /** Of the instances on a node: an update that waits for its runtimes names no node yet. */
  const ofNode = (name: string): ObjectKey[] => ctx.instances.byIndex("node", name).flatMap((one) => ofInstance(keyOf(one)));
  const ofClaim = (change: Change<Pod>): ObjectKey[] => {
    const named = [change.old, change.now].flatMap((pod) => {
      const name = pod?.metadata.labels?.[MIGRATION_LABEL];
      return name === undefined ? [] : [{ namespace: change.key.namespace, name }];
    });
    return named.length > 0 ? named : ownerKeys("Instance")(change).flatMap(ofInstance);
  };
  const controller = new Controller({
    name: "migration",
    workers: 4,
    reconcile: (key) => reconcileMigration(key, ctx),
    clock: ctx.clock,
    logger: ctx.log,
  })
    // One that goes on is looked at with the others of its instance: they wait for it, or are pruned after it.
    .watch(ctx.migrations, ({ key, old, now }) => {
      const one = now ?? old;
      if (one === undefined || sameStatus(forInstance(old), forInstance(now))) return [key];
      return [key, ...ofInstance({ namespace: one.metadata.namespace, name: one.spec.instance })];
    })
    .watch(ctx.instances, ({ key }: Change<Instance>) => ofInstance(key))
    .watch(ctx.claims, ofClaim)
    .watch(ctx.nodes, (change: Change<Node>) => {
      const cordoned = change.old?.spec.unschedulable !== change.now?.spec.unschedulable;
      return cordoned || answersDifferently(change) ? onNode(change.key.name) : [];
    })
    .watch(ctx.hosts, ({ key, old, now }: Change<Host>) => [
      ...(sameStatus(suitability(old), suitability(now)) ? [] : onNode(key.name)),
      ...(sameRuntimes(old, now) ? [] : ofNode(key.name)),
    ])
    // Not mapped: what they hold is asked for when it is planned.
    .watch(ctx.pools, () => [])
    .watch(ctx.leases, () => []);
  ctx.heartbeats.onChange((node) => {
    for (const key of onNode(node)) controller.enqueue(key);
  });
  return controller;
}
