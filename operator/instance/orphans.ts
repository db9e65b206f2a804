/**
 * Claims whose Instance is gone from the API without its release: its finalizer was removed by force. Nobody else may delete them,
 * for the admission policy refuses the garbage collector as it refuses everyone.
 */
import type { Instance } from "../../crds/instance.ts";
import { instances } from "../../crds/resources.ts";
import { Controller, keyOf, keyText, resources, type Change, type Node, type ObjectKey, type Pod } from "../../kube/index.ts";
import type { OperatorContext } from "../context.ts";
import { answersDifferently, nodeSeen } from "../nodes.ts";
import { dropBudget } from "./budget.ts";

export type OrphanContext = Pick<
  OperatorContext,
  "budgets" | "claimCounts" | "claims" | "client" | "events" | "heartbeats" | "instances" | "log" | "nodes"
> & {
  /** Claims that were let go here, as text, until they have ended. Forgetting one leaves an empty budget behind, nothing else. */
  ending: Set<string>;
};

const ownerOf = (pod: Pod) =>
  pod.metadata.ownerReferences?.find(({ kind, controller }) => kind === "Instance" && controller === true);

/**
 * Whether the API server itself says that there is no Instance of this name and uid; throws when it cannot be asked. By a list,
 * not a get: an API server that does not serve the kind (yet, or any more) refuses a list, and answers a get as if only this
 * one object were missing.
 */
async function isGone({ client }: OrphanContext, namespace: string | undefined, name: string, uid: string): Promise<boolean> {
  const found = await client.list<Instance>(instances, { namespace, fieldSelector: `metadata.name=${name}` });
  return found.every(({ metadata }) => metadata.uid !== uid);
}

/** How a claim on this node is deleted. "wait": its agent could not shut the guest down, and the grace period would run out. */
async function howToDelete(ctx: OrphanContext, nodeName: string | undefined): Promise<"wait" | { gracePeriodSeconds?: number }> {
  if (nodeName === undefined) return {};
  const node = nodeSeen(ctx, nodeName);
  if (node.state === "Answering") return {};
  // No kubelet will ever end it, and nothing is left there to be shut down.
  if (node.state === "Gone" && (await ctx.client.get(resources.nodes, { name: nodeName })) === undefined) {
    return { gracePeriodSeconds: 0 };
  }
  return "wait";
}

/**
 * Deletes the claim when its Instance is proven gone. Its long grace period is kept: the agent shuts the guest down, and ends
 * the holder when nothing is left in the claim. May be repeated.
 */
export async function releaseOrphan(key: ObjectKey, ctx: OrphanContext): Promise<void> {
  const { claims, client, events, log, ending } = ctx;
  const pod = claims.get(key);
  if (pod === undefined) {
    if (ending.delete(keyText(key))) await dropBudget(key.namespace ?? "", ctx);
    return;
  }
  const owner = ownerOf(pod);
  const { uid, deletionTimestamp } = pod.metadata;
  if (owner === undefined || uid === undefined || deletionTimestamp !== undefined) return;
  if (ctx.instances.get({ namespace: key.namespace, name: owner.name })?.metadata.uid === owner.uid) return;
  if (!(await isGone(ctx, key.namespace, owner.name, owner.uid))) return;
  const how = await howToDelete(ctx, pod.spec.nodeName);
  if (how === "wait") return;
  ending.add(keyText(key));
  if (!(await client.delete(resources.pods, key, { uid, ...how }))) return;
  const note = `instance ${owner.name} is gone from the API without its release: its guest is shut down, and its claim ends`;
  events.event(pod, "Warning", "InstanceVanished", "Release", note);
  log.warn({ claim: keyText(key), instance: owner.name, uid: owner.uid }, "let the claim of a vanished instance go");
}

/** The controller of claims without an instance, wired to its sources; not started. */
export function orphanController(operator: OperatorContext): Controller {
  const ctx: OrphanContext = { ...operator, ending: new Set() };
  const ofInstance = ({ old, now }: Change<Instance>): ObjectKey[] =>
    now === undefined && old !== undefined ? ctx.claims.byIndex("owner", old.metadata.uid).map(keyOf) : [];
  const onNode = (name: string): ObjectKey[] => ctx.claims.byIndex("node", name).map(keyOf);
  const controller = new Controller({
    name: "orphaned-claim",
    workers: 2,
    reconcile: (key) => releaseOrphan(key, ctx),
    clock: operator.clock,
    logger: operator.log,
  })
    .watch(ctx.claims)
    .watch(ctx.instances, ofInstance)
    .watch(ctx.nodes, (change: Change<Node>) => (answersDifferently(change) ? onNode(change.key.name) : []))
    // Not mapped: what it holds is asked for when a claim goes.
    .watch(operator.leases, () => []);
  ctx.heartbeats.onChange((node) => {
    for (const key of onNode(node)) controller.enqueue(key);
  });
  return controller;
}
