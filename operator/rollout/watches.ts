/** What makes a Rollout worth another look; an event costs as much as it concerns, however many instances there are. */
import { ROLLOUT_LABEL } from "../../crds/names.ts";
import type { Migration } from "../../crds/migration.ts";
import { Controller, type Change, type Node, type ObjectKey } from "../../kube/index.ts";
import type { OperatorContext } from "../context.ts";
import { hasTurn } from "../migration/attempt.ts";
import { answersDifferently } from "../nodes.ts";
import { Recent } from "../recent.ts";
import { CurrentRuntimes } from "./current.ts";
import { reconcileRollout, type RolloutContext } from "./reconcile.ts";
import type { RuntimeUpdateSettings } from "./settings.ts";
import { Tally } from "./tally.ts";

const keyed = (names: readonly (string | undefined)[]): ObjectKey[] =>
  [...new Set(names)].filter((name) => name !== undefined).map((name) => ({ name }));

/** The Rollout that made it, when it got its turn or ended: how far it is does not matter. */
function madeBy({ old, now }: Change<Migration>): ObjectKey[] {
  const one = now ?? old;
  if (one === undefined) return [];
  const same = old !== undefined && now !== undefined && hasTurn(old) === hasTurn(now) && old.status?.phase === now.status?.phase;
  return same ? [] : keyed([one.metadata.labels?.[ROLLOUT_LABEL]]);
}

/** The controller of Rollouts, wired to its sources; not started. */
export function rolloutController(operator: OperatorContext, updates: RuntimeUpdateSettings): Controller {
  const ctx: RolloutContext = {
    ...operator,
    updates,
    tally: new Tally(),
    current: new CurrentRuntimes(),
    recentRollouts: new Recent(operator.rollouts, operator.clock),
    looked: new Map(),
    written: new Map(),
    made: new Map(),
  };
  const onNode = (...nodes: string[]): ObjectKey[] => keyed(nodes.map((node) => ctx.current.on(node)));
  const controller = new Controller({
    name: "rollout",
    // What one has made the others need not see.
    workers: 1,
    reconcile: (key) => reconcileRollout(key, ctx),
    clock: operator.clock,
    logger: operator.log,
  })
    .watch(ctx.rollouts)
    .watch(ctx.hosts, (change) => {
      const concerned = ctx.current.note(change);
      // How many nodes have it is told of each.
      return concerned.length === 0 ? [] : keyed([...concerned, ...ctx.rollouts.list().map(({ metadata }) => metadata.name)]);
    })
    .watch(ctx.instances, (change) => onNode(...ctx.tally.note(change)))
    .watch(ctx.migrations, madeBy)
    .watch(ctx.nodes, (change: Change<Node>) => (answersDifferently(change) ? onNode(change.key.name) : []))
    // Not mapped: what it holds is asked for when a node is looked at.
    .watch(ctx.leases, () => []);
  ctx.heartbeats.onChange((node) => {
    for (const key of onNode(node)) controller.enqueue(key);
  });
  return controller;
}
