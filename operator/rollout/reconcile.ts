/** The story of one Rollout: made when a node first has its runtime, it sees that every guest comes to run in it. */
import type { Migration } from "../../crds/migration.ts";
import { API_VERSION, OPERATOR_MANAGER } from "../../crds/names.ts";
import { migrations, rollouts } from "../../crds/resources.ts";
import type { Rollout } from "../../crds/rollout.ts";
import { ApiError, findCondition, keyText, parseKey, sameStatus, type ObjectKey, type Requeue } from "../../kube/index.ts";
import type { OperatorContext } from "../context.ts";
import { migrationsOf } from "../migration/lookup.ts";
import { nodeSeen } from "../nodes.ts";
import type { Recent } from "../recent.ts";
import { activeUpdates } from "./active.ts";
import type { CurrentRuntimes } from "./current.ts";
import {
  planRollout,
  type ActiveUpdate,
  type FailedUpdate,
  type RolloutFacts,
  type RolloutNode,
  type RolloutPlan,
} from "./plan.ts";
import type { RuntimeUpdateSettings } from "./settings.ts";
import { isAwaited, rolloutEvent, rolloutStatus } from "./status.ts";
import type { Tally } from "./tally.ts";
import { isFault, nameOf, outdatedState, updateMigration } from "./update.ts";

export interface RolloutContext extends OperatorContext {
  updates: RuntimeUpdateSettings;
  tally: Tally;
  current: CurrentRuntimes;
  recentRollouts: Recent<Rollout>;
  /** When each was last looked at, and its status written, by name; monotonic ms. */
  looked: Map<string, number>;
  written: Map<string, number>;
  /** Migrations that were made and are not yet in the cache, by the Rollout's name. */
  made: Map<string, Set<string>>;
}

/** An event of one guest among thousands need not be answered by a look of its own. */
const LOOK_MS = 100;
/** Figures move all the time while it rolls. */
const COALESCE_MS = 1000;
/** Rollouts whose place another has taken, and that are kept to be looked up. */
const KEPT = 2;

/** Level-triggered: reads the world anew each time, and may be killed at any line. */
export async function reconcileRollout({ name }: ObjectKey, ctx: RolloutContext): Promise<Requeue | void> {
  const rollout = ctx.recentRollouts.get({ name });
  if (ctx.updates.mode === "Off") return rollout === undefined ? undefined : remove(rollout, ctx);
  if (rollout === undefined) return ctx.current.of(name) === undefined ? undefined : make(name, ctx);
  if (rollout.metadata.deletionTimestamp !== undefined) return undefined;
  const waitMs = (ctx.looked.get(name) ?? Number.NEGATIVE_INFINITY) + LOOK_MS - ctx.clock.monotonic();
  if (waitMs > 0) return { afterMs: waitMs };
  ctx.looked.set(name, ctx.clock.monotonic());

  const facts = factsOf(rollout, ctx);
  const plan = planRollout(facts);
  const lateMs = await writeStatus(facts, plan, ctx);
  await act(facts, plan, ctx);
  if (plan.phase === "Complete" && facts.version !== undefined) await removeOld(ctx);
  const waits = [lateMs, plan.recheckMs].filter((ms) => ms !== undefined);
  return waits.length === 0 ? undefined : { afterMs: Math.max(1, Math.min(...waits)) };
}

async function make(name: string, ctx: RolloutContext): Promise<Requeue | void> {
  const draft = { apiVersion: API_VERSION, kind: "Rollout", metadata: { name }, spec: {} };
  try {
    ctx.recentRollouts.put(await ctx.client.create(rollouts, draft, { manager: OPERATOR_MANAGER }));
    ctx.log.info({ rollout: name }, "a node has a new runtime");
  } catch (error) {
    if (!(error instanceof ApiError && error.reason === "AlreadyExists")) throw error;
  }
  return { afterMs: 1 };
}

async function remove({ metadata: { name, uid } }: Rollout, ctx: RolloutContext): Promise<void> {
  await ctx.client.delete(rollouts, { name }, { uid });
  ctx.log.info({ rollout: name }, "a Rollout was deleted");
}

/** Those whose runtime is current nowhere any more; the last of them stay. */
async function removeOld(ctx: RolloutContext): Promise<void> {
  const old = ctx.rollouts
    .list()
    .filter(({ metadata }) => ctx.current.of(metadata.name) === undefined && metadata.deletionTimestamp === undefined)
    .sort((a, b) => b.metadata.creationTimestamp.localeCompare(a.metadata.creationTimestamp));
  for (const one of old.slice(KEPT)) await remove(one, ctx);
}

/** Its Migrations that have not ended, those included that the cache does not show yet. */
function activeOf(name: string, ctx: RolloutContext): ActiveUpdate[] {
  const made = ctx.made.get(name) ?? new Set<string>();
  for (const key of made) if (ctx.recentMigrations.written(parseKey(key)) === undefined) made.delete(key);
  const cached = ctx.migrations.byIndex("rollout", `${name}/active`).map(nameOf);
  const all = [...cached, ...made].map(parseKey).map((key) => ({
    cached: ctx.migrations.get(key),
    written: ctx.recentMigrations.written(key),
  }));
  return activeUpdates(all, ({ metadata: { namespace }, spec }) => {
    return ctx.instances.get({ namespace, name: spec.instance })?.status?.nodeName ?? "";
  });
}

const failedOf = (name: string, ctx: RolloutContext): FailedUpdate[] =>
  ctx.migrations
    .byIndex("rollout", `${name}/failed`)
    .filter(isFault)
    .map((migration: Migration) => ({
      instance: keyText({ namespace: migration.metadata.namespace, name: migration.spec.instance }),
      migration: nameOf(migration),
      message: findCondition(migration.status?.conditions, "Ready")?.message ?? "",
      endedAt: migration.status?.endedAt ?? migration.metadata.creationTimestamp,
    }));

function nodeOf(rollout: Rollout, version: string, node: string, ctx: RolloutContext): RolloutNode {
  const runtime = ctx.hosts.get({ name: node })?.status?.runtimes?.find((one) => one.version === version) ?? { version };
  return {
    name: node,
    answers: nodeSeen(ctx, node).state === "Answering",
    *outdated(since) {
      for (const text of ctx.tally.outdated(node, version)) {
        const key = parseKey(text);
        const instance = ctx.recentInstances.get(key);
        if (instance === undefined) continue;
        const moves = migrationsOf(key, ctx);
        yield { instance: key, ...outdatedState({ rollout, since, instance, moves, runtime }) };
      }
    },
  };
}

function factsOf(rollout: Rollout, ctx: RolloutContext): RolloutFacts {
  const { name } = rollout.metadata;
  const runtime = ctx.current.of(name);
  const { version, nodes } = runtime ?? { version: undefined, nodes: new Set<string>() };
  return {
    rollout,
    version,
    nodes: version === undefined ? [] : [...nodes].map((node) => nodeOf(rollout, version, node, ctx)),
    allNodes: ctx.current.nodes,
    ...ctx.tally.count(nodes, version ?? ""),
    active: activeOf(name, ctx),
    failed: failedOf(name, ctx),
    settings: ctx.updates,
    now: ctx.clock.now(),
  };
}

/** The one place that writes the status; nothing when nothing changed. Returns when a change that nobody waits for may be written, ms. */
async function writeStatus(facts: RolloutFacts, plan: RolloutPlan, ctx: RolloutContext): Promise<number | undefined> {
  const { rollout } = facts;
  const { name, uid } = rollout.metadata;
  const want = rolloutStatus(facts, plan);
  if (sameStatus(rollout.status, want)) return undefined;
  const leftMs = (ctx.written.get(name) ?? Number.NEGATIVE_INFINITY) + COALESCE_MS - ctx.clock.monotonic();
  if (leftMs > 0 && !isAwaited(rollout.status, want)) return leftMs;
  const { apiVersion, kind } = rollout;
  const written = await ctx.client.apply(
    rollouts,
    { apiVersion, kind, metadata: { name, uid }, status: want },
    { manager: OPERATOR_MANAGER, subresource: "status" },
  );
  ctx.recentRollouts.put(written);
  ctx.written.set(name, ctx.clock.monotonic());
  const event = rolloutEvent(rollout.status, want);
  if (event === undefined) return undefined;
  ctx.events.event(written, event.type, event.reason, "RollOut", event.note);
  ctx.log.info({ rollout: name, phase: want.phase, reason: want.reason, progress: want.progress }, event.note);
  return undefined;
}

/** The plan's status is written before: a name that is made anew by the next look is then the same. */
async function act({ rollout, version = "" }: RolloutFacts, plan: RolloutPlan, ctx: RolloutContext): Promise<void> {
  const { name } = rollout.metadata;
  for (const key of plan.withdraw) {
    const uid = ctx.migrations.get(key)?.metadata.uid;
    if (uid === undefined) continue;
    await ctx.client.delete(migrations, key, { uid });
    ctx.log.info({ rollout: name, migration: keyText(key) }, "an update that had not begun was taken back");
  }
  const made = ctx.made.get(name) ?? new Set<string>();
  ctx.made.set(name, made);
  for (const key of plan.make) {
    const instance = ctx.recentInstances.get(key);
    if (instance === undefined || plan.since === undefined) continue;
    const draft = updateMigration(rollout, plan.since, instance, version);
    try {
      const migration = await ctx.client.create(migrations, draft, { manager: OPERATOR_MANAGER });
      ctx.recentMigrations.put(migration);
      made.add(nameOf(migration));
      ctx.log.info({ rollout: name, instance: keyText(key), migration: draft.metadata.name }, "a roll-out updates an instance");
    } catch (error) {
      // It is there, and in the cache in a moment.
      if (!(error instanceof ApiError && error.reason === "AlreadyExists")) throw error;
    }
  }
}
