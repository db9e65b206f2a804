/** Does what an evicted claim needs before it may go: moves its instance, or shuts it down. */
import type { Migration } from "../../crds/migration.ts";
import type { Instance } from "../../crds/instance.ts";
import { OPERATOR_MANAGER } from "../../crds/names.ts";
import { migrations } from "../../crds/resources.ts";
import {
  ApiError,
  Controller,
  keyOf,
  keyText,
  resources,
  type Change,
  type ObjectKey,
  type Pod,
  type Requeue,
} from "../../kube/index.ts";
import type { OperatorContext } from "../context.ts";
import { nodeSeen } from "../nodes.ts";
import { roleOf } from "./judge.ts";
import { drainMigration } from "./moves.ts";
import { askedOf } from "./notes.ts";
import { planDrain, type DrainPlan } from "./plan.ts";
import type { DrainSettings } from "./settings.ts";

type DrainSources = Pick<OperatorContext, "claims" | "instances" | "migrations" | "nodes" | "heartbeats" | "clock">;

export type DrainContext = DrainSources &
  Pick<OperatorContext, "client" | "events" | "log"> & {
    deadlineMs: number;
    /** What was last told of a claim, by its uid. Forgetting it repeats an event, nothing else. */
    told: Map<string, string>;
  };

/** What follows for an instance whose present claim was asked to go; undefined when it was not, or nobody asks any more. */
export function drainOf(
  instance: Instance,
  pod: Pod | undefined,
  ctx: Omit<DrainSources, "claims" | "instances">,
  deadlineMs: number,
): DrainPlan | undefined {
  const asked = pod === undefined ? undefined : askedOf(pod);
  const uid = pod?.metadata.uid;
  if (pod === undefined || asked === undefined || uid === undefined || instance.status?.claim?.uid !== uid) return undefined;
  const { nodeName } = pod.spec;
  return planDrain({
    instance,
    claim: { uid, node: nodeName, deleting: pod.metadata.deletionTimestamp !== undefined },
    asked,
    moves: ctx.migrations.byIndex("instance", keyText(keyOf(instance))),
    node: nodeName === undefined ? { state: "Answering" } : nodeSeen(ctx, nodeName),
    now: ctx.clock.now(),
    deadlineMs,
  });
}

/** Makes the Migration; one of that name that is there already is the one that was made before. */
async function move(instance: Instance, pod: Pod, failed: readonly Migration[], ctx: DrainContext): Promise<string | undefined> {
  const draft = drainMigration(instance, pod.metadata.uid ?? "", failed);
  const { name, namespace } = draft.metadata;
  try {
    await ctx.client.create(migrations, draft, { manager: OPERATOR_MANAGER });
    ctx.log.info({ instance: keyText(keyOf(instance)), migration: name }, "a drain moves an instance");
    return undefined;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.reason === "AlreadyExists") {
      const there = await ctx.client.get(migrations, { namespace, name });
      if (there === undefined || there.metadata.labels?.["drover.dev/drain"] === pod.metadata.uid) return undefined;
      return `there is a Migration ${name} that is not this drain's; delete it`;
    }
    if (error.code === 403 || error.code === 422) return `its Migration was refused: ${error.message}`;
    throw error;
  }
}

/** Deletes the claim with its whole grace period: its agent shuts the guest down, and ends the claim when nothing runs in it. */
async function stop(instance: Instance, pod: Pod, ctx: DrainContext): Promise<void> {
  await ctx.client.delete(resources.pods, keyOf(pod), { uid: pod.metadata.uid });
  ctx.log.info({ instance: keyText(keyOf(instance)), claim: pod.metadata.name }, "a drain lets a claim go");
}

function tell(instance: Instance, pod: Pod, plan: DrainPlan, trouble: string | undefined, ctx: DrainContext): void {
  const uid = pod.metadata.uid ?? "";
  const bad = plan.stuck || plan.overdue || trouble !== undefined;
  // How a move goes on is told by its own events.
  const news = bad ? [plan.reason, plan.overdue, trouble].join("/") : "well";
  if (ctx.told.get(uid) === news) return;
  ctx.told.set(uid, news);
  const reason = plan.overdue ? "DrainOverdue" : bad ? "DrainStuck" : "Draining";
  const note = `its eviction from node ${pod.spec.nodeName ?? ""} was asked for: it ${plan.message}`;
  ctx.events.event(instance, bad ? "Warning" : "Normal", reason, "Drain", trouble === undefined ? note : `${note}; ${trouble}`);
}

/** One look at one claim. May be repeated, and killed at any line. */
export async function reconcileDrain(key: ObjectKey, ctx: DrainContext): Promise<Requeue | void> {
  const pod = ctx.claims.get(key);
  if (pod === undefined || askedOf(pod) === undefined) return undefined;
  const owner = pod.metadata.ownerReferences?.find(({ controller }) => controller === true);
  if (owner === undefined) return undefined;
  const about = { namespace: key.namespace, name: owner.name };
  const instance = ctx.instances.get(about);
  if (instance?.metadata.uid !== owner.uid) return undefined;
  const moves = ctx.migrations.byIndex("instance", keyText(about));
  if (roleOf({ pod, instance, moves }).role !== "home") return undefined;
  const plan = drainOf(instance, pod, ctx, ctx.deadlineMs);
  if (plan === undefined) return undefined;
  let trouble: string | undefined;
  if (plan.step.do === "move") trouble = await move(instance, pod, plan.step.failed, ctx);
  if (plan.step.do === "stop") await stop(instance, pod, ctx);
  tell(instance, pod, plan, trouble, ctx);
  return plan.recheckMs === undefined ? undefined : { afterMs: plan.recheckMs };
}

/** The controller of evicted claims, wired to its sources; not started. */
export function drainController(operator: OperatorContext, { deadlineMs }: DrainSettings): Controller {
  const ctx: DrainContext = { ...operator, deadlineMs, told: new Map() };
  const asked = (pods: Pod[]): ObjectKey[] => pods.filter((pod) => askedOf(pod) !== undefined).map(keyOf);
  const ofInstance = (instance: Instance | undefined): ObjectKey[] =>
    instance === undefined ? [] : asked(ctx.claims.byIndex("owner", instance.metadata.uid));
  const ofMove = ({ old, now }: Change<Migration>): ObjectKey[] => {
    const { namespace } = (now ?? old)?.metadata ?? {};
    const name = (now ?? old)?.spec.instance;
    return name === undefined ? [] : ofInstance(ctx.instances.get({ namespace, name }));
  };
  return new Controller({
    name: "drain",
    workers: 4,
    reconcile: (key) => reconcileDrain(key, ctx),
    clock: operator.clock,
    logger: operator.log,
  })
    .watch(ctx.claims, ({ key, old, now }) => {
      if (now === undefined) ctx.told.delete(old?.metadata.uid ?? "");
      return now === undefined ? [] : asked([now]).map(() => key);
    })
    .watch(ctx.instances, ({ now }) => ofInstance(now))
    .watch(ctx.migrations, ofMove);
}
