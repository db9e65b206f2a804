/** What makes an instance worth another look; each source names the instances it concerns by an index, never by a scan. */
import type { Host } from "../../crds/host.ts";
import type { Instance } from "../../crds/instance.ts";
import type { StoragePool } from "../../crds/pool.ts";
import {
  Controller,
  keyOf,
  ownerKeys,
  type Change,
  type Node,
  type ObjectKey,
  type PodDisruptionBudget,
} from "../../kube/index.ts";
import { movedInstances, sameRuntimes } from "../migration/watches.ts";
import { answersDifferently } from "../nodes.ts";
import { reconcileInstance } from "./reconcile.ts";
import { poolReady } from "./references.ts";
import type { InstanceContext } from "./scope.ts";

/** A pool matters when it comes, goes, or begins to go; its status only while no Node offers it: it says why. */
const poolMatters = ({ old, now }: Change<StoragePool>, published: boolean): boolean =>
  old === undefined ||
  now === undefined ||
  old.metadata.deletionTimestamp !== now.metadata.deletionTimestamp ||
  (!published && poolReady(old)?.message !== poolReady(now)?.message);

/** The controller of instances, wired to its sources; not started. */
export function instanceController(ctx: InstanceContext): Controller {
  const keys = (found: Instance[]): ObjectKey[] => found.map(keyOf);
  const onNode = (name: string): ObjectKey[] => keys(ctx.instances.byIndex("node", name));
  /** Only where a claim is yet to be made does a pool matter. */
  const unplaced = (pool: string): ObjectKey[] =>
    keys(ctx.instances.byIndex("pool", pool).filter(({ status }) => status?.claim?.uid === undefined));
  const budgetGone = ({ old, now }: Change<PodDisruptionBudget>): ObjectKey[] => {
    if (now !== undefined || old?.metadata.namespace === undefined) return [];
    // Any one instance with a claim makes the budget again.
    const claim = ctx.claims.byIndex("namespace", old.metadata.namespace).at(0);
    return claim === undefined ? [] : ownerKeys("Instance")({ key: keyOf(claim), now: claim });
  };

  const controller = new Controller({
    name: "instance",
    workers: 8,
    reconcile: (key) => reconcileInstance(key, ctx),
    clock: ctx.clock,
    logger: ctx.log,
  })
    .watch(ctx.instances)
    .watch(ctx.claims, ownerKeys("Instance"))
    .watch(ctx.pools, (change) => {
      const { name } = change.key;
      return poolMatters(change, ctx.publishedPools.has(name)) ? unplaced(name) : [];
    })
    .watch(ctx.nodes, (change: Change<Node>) => (answersDifferently(change) ? onNode(change.key.name) : []))
    .watch(ctx.budgets, budgetGone)
    .watch(ctx.migrations, movedInstances)
    // What its pools hold is asked for when a claim is made; what its runtimes are is said of every instance on it.
    .watch(ctx.hosts, ({ key, old, now }: Change<Host>) => (sameRuntimes(old, now) ? [] : onNode(key.name)))
    // Not mapped: what it holds is asked for when a claim is made, so it must be there before the first is.
    .watch(ctx.leases, () => []);
  ctx.publishedPools.onFirst((pool) => {
    for (const key of unplaced(pool)) controller.enqueue(key);
  });
  ctx.heartbeats.onChange((node) => {
    for (const key of onNode(node)) controller.enqueue(key);
  });
  return controller;
}
