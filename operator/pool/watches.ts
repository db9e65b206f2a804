/** What makes a pool worth another look. */
import { poolsOf } from "../../crds/disks.ts";
import type { Host, HostPool } from "../../crds/host.ts";
import type { Instance } from "../../crds/instance.ts";
import { Controller, sameStatus, type Change, type Node, type ObjectKey } from "../../kube/index.ts";
import type { OperatorContext } from "../context.ts";
import { answersDifferently } from "../nodes.ts";
import { Recent } from "../recent.ts";
import { reconcilePool, type PoolContext } from "./reconcile.ts";

const byName = (host: Host | undefined): Map<string, HostPool> =>
  new Map((host?.status?.pools ?? []).map((pool) => [pool.name, pool]));

/** The pools of which this Host now says something else. */
export function changedPools({ old, now }: Change<Host>): ObjectKey[] {
  const [before, after] = [byName(old), byName(now)];
  const names = new Set([...before.keys(), ...after.keys()]);
  return [...names].filter((name) => !sameStatus(before.get(name), after.get(name))).map((name) => ({ name }));
}

/** The controller of pools, wired to its sources; not started. */
export function poolController(operator: OperatorContext): Controller {
  const ctx: PoolContext = { ...operator, recentPools: new Recent(operator.pools, operator.clock), writtenAt: new Map() };
  const onNode = (name: string): ObjectKey[] => changedPools({ key: { name }, old: ctx.hosts.get({ name }) });
  /** A pool that is being deleted waits for its last instance; another one does not care. */
  const lastUser = ({ old, now }: Change<Instance>): ObjectKey[] => {
    if (now !== undefined || old === undefined) return [];
    const going = poolsOf(old).filter((name) => ctx.pools.get({ name })?.metadata.deletionTimestamp !== undefined);
    return going.map((name) => ({ name }));
  };

  const controller = new Controller({
    name: "pool",
    workers: 2,
    reconcile: (key) => reconcilePool(key, ctx),
    clock: ctx.clock,
    logger: ctx.log,
  })
    .watch(ctx.pools)
    .watch(ctx.hosts, changedPools)
    .watch(ctx.instances, lastUser)
    .watch(ctx.nodes, (change: Change<Node>) => (answersDifferently(change) ? onNode(change.key.name) : []));
  ctx.heartbeats.onChange((node) => {
    for (const key of onNode(node)) controller.enqueue(key);
  });
  return controller;
}
