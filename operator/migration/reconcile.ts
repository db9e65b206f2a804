/** The story of one Migration. */
import { MIGRATION_FINALIZER, OPERATOR_MANAGER } from "../../crds/names.ts";
import type { Handover, Migration } from "../../crds/migration.ts";
import { migrations } from "../../crds/resources.ts";
import {
  ApiError,
  ensureFinalizer,
  removeFinalizer,
  sameStatus,
  type JsonPatchOp,
  type ObjectKey,
  type Requeue,
} from "../../kube/index.ts";
import { isNoted } from "./active.ts";
import { hasEnded, hasTurn } from "./attempt.ts";
import { createTargetClaim, deleteTargetClaim, takeLabelOff } from "./claim.ts";
import { pruning } from "./history.ts";
import { resizeClaim } from "./in-place/resize.ts";
import { migrationsOf } from "./lookup.ts";
import { planMove, type MovePlan } from "./plan.ts";
import { quietFor } from "./quiet.ts";
import { MoveScope, type MoveContext } from "./scope.ts";
import { computeStatus, ownStatus } from "./status.ts";
import { moveEvents } from "./transitions.ts";

/** Steps of one reconcile at most; more would be two plans that undo each other. */
const STEPS = 20;
/** A quota or an admission policy that is relaxed tells nobody. */
const REFUSED_RETRY_MS = 15_000;

/** Level-triggered: reads the world anew each time, and may be killed at any line. */
export async function reconcileMigration(key: ObjectKey, ctx: MoveContext): Promise<Requeue | void> {
  const migration = ctx.recentMigrations.get(key);
  if (migration === undefined) return undefined;
  const scope = new MoveScope(migration, ctx);
  if (hasEnded(migration)) return afterwards(scope);
  if (migration.metadata.finalizers?.includes(MIGRATION_FINALIZER) !== true) {
    // Deleted before it was ever looked at: nothing of it is anywhere.
    if (migration.metadata.deletionTimestamp !== undefined) return undefined;
    scope.migration = await ensureFinalizer(ctx.client, migrations, migration, MIGRATION_FINALIZER);
    ctx.recentMigrations.put(scope.migration);
  }
  for (let step = 0; step < STEPS; step += 1) {
    const facts = scope.facts();
    const plan = planMove(facts);
    const quietMs = quietFor(facts, plan);
    if (quietMs > 0) return { afterMs: quietMs };
    if (!(await writeStatus(scope, plan))) continue;
    const next = await act(scope, plan);
    if (next !== "go on") return next;
  }
  throw new Error(`the Migration is planned without end: ${planMove(scope.facts()).reason}`);
}

/**
 * The one place that writes the status; nothing when nothing changed. Tells of the transition. Bound to what was read: what a leader
 * of before sent, and comes late, must not take back what stands there. False when something newer stands there: to be planned anew.
 */
async function writeStatus(scope: MoveScope, plan: MovePlan): Promise<boolean> {
  const { ctx, migration } = scope;
  const { name, namespace, uid } = migration.metadata;
  const have = ownStatus(migration.status);
  const computed = computeStatus(migration, plan, new Date(ctx.clock.now()));
  const want = { ...computed, instanceUid: computed.instanceUid ?? scope.instance?.metadata.uid };
  if (sameStatus(have, want)) return true;
  const { apiVersion, kind } = migration;
  const { resourceVersion } = migration.metadata;
  const metadata = { name, uid, resourceVersion, ...(namespace === undefined ? {} : { namespace }) };
  try {
    const written = await ctx.client.apply(
      migrations,
      { apiVersion, kind, metadata, status: want },
      { manager: OPERATOR_MANAGER, subresource: "status" },
    );
    ctx.recentMigrations.put(written);
    scope.migration = written;
  } catch (error) {
    if (!(error instanceof ApiError && error.isConflict)) throw error;
    await readAgain(scope, error);
    return false;
  }
  if (have.phase !== want.phase)
    ctx.log.info({ migration: scope.key, from: have.phase, to: want.phase, reason: want.reason }, plan.message);
  for (const { type, reason, action, note } of moveEvents(have, want))
    ctx.events.event(scope.migration, type, reason, action, note);
  if (plan.end !== undefined) tellInstance(scope, plan);
  return true;
}

function tellInstance({ ctx, instance, migration }: MoveScope, { end = "Failed", message }: MovePlan): void {
  if (instance === undefined) return;
  const note = end === "Succeeded" ? message : `the Migration ${migration.metadata.name} ended: ${message}`;
  ctx.events.event(instance, end === "Failed" ? "Warning" : "Normal", `Migration${end}`, "Move", note);
}

/** Takes the step. "go on": the world is another one now. */
async function act(scope: MoveScope, plan: MovePlan): Promise<Requeue | void | "go on"> {
  const { step } = plan;
  if (!hasTurn(scope.migration) && plan.reason !== "WaitingForSlot") scope.turns.settle(scope.migration.metadata.uid);
  switch (step.do) {
    case "nothing":
      return afterwards(scope);
    case "wait":
      if (scope.refused !== undefined) return { afterMs: Math.min(REFUSED_RETRY_MS, step.afterMs ?? REFUSED_RETRY_MS) };
      return step.afterMs === undefined ? undefined : { afterMs: step.afterMs };
    case "note":
      return "go on";
    case "create-claim":
      await createTargetClaim(scope);
      return "go on";
    case "delete-claim":
      await deleteTargetClaim(scope, step.claim, step.graceSeconds);
      return "go on";
    case "take-label-off":
      await takeLabelOff(scope, step.claim);
      return "go on";
    case "resize-claim":
      await resizeClaim(scope, step.claim, step.toBytes);
      return "go on";
    case "begin":
    case "write":
      await writeRecord(scope, step.from, step.to);
      return "go on";
  }
}

const RECORD = "/status/handover";

/** The first record is bound to what was read of the whole object; a later one to the record that it replaces. */
function recordPatch(migration: Migration, from: Handover | undefined, to: Handover): JsonPatchOp[] {
  if (from !== undefined)
    return [
      { op: "test", path: RECORD, value: from },
      { op: "replace", path: RECORD, value: to },
    ];
  return [
    { op: "test", path: "/metadata/resourceVersion", value: migration.metadata.resourceVersion },
    { op: "add", path: RECORD, value: to },
  ];
}

/** Compare and set. Whoever was faster is right: then the object is read again, and planned anew. */
async function writeRecord(scope: MoveScope, from: Handover | undefined, to: Handover): Promise<void> {
  const { ctx, migration, key } = scope;
  try {
    const written = await ctx.client.patchJson(migrations, key, recordPatch(migration, from, to), {
      subresource: "status",
      manager: OPERATOR_MANAGER,
    });
    ctx.log.info({ migration: key, attempt: to.attempt, from: from?.state, to: to.state }, "handover");
    ctx.recentMigrations.put(written);
    scope.migration = written;
  } catch (error) {
    if (!(error instanceof ApiError && (error.isConflict || error.code === 422))) throw error;
    await readAgain(scope, error);
  }
}

/** After a write that was refused because something newer stands there. Throws the refusal when the object is gone. */
async function readAgain(scope: MoveScope, error: ApiError): Promise<void> {
  const { ctx, migration, key } = scope;
  const now = await ctx.client.get(migrations, key);
  if (now === undefined || now.metadata.uid !== migration.metadata.uid) throw error;
  ctx.recentMigrations.put(now);
  scope.migration = now;
}

/** It has ended: the instance notes how, then the finalizer goes, and one day the object. */
async function afterwards(scope: MoveScope): Promise<Requeue | void> {
  const { ctx, migration, instance } = scope;
  const { uid } = migration.metadata;
  scope.turns.settle(uid);
  ctx.stopwatches.forget(uid);
  const lives = instance !== undefined && instance.metadata.uid === migration.status?.instanceUid;
  if (lives && !isNoted(instance.status ?? {}, migration)) return undefined; // its reconcile wakes this one
  if (migration.metadata.finalizers?.includes(MIGRATION_FINALIZER) === true) {
    await removeFinalizer(ctx.client, migrations, migration, MIGRATION_FINALIZER);
    return undefined;
  }
  if (migration.metadata.deletionTimestamp !== undefined) return undefined;
  const next = pruning(migration, migrationsOf(scope.instanceKey, ctx), ctx.moves.history, ctx.clock.now());
  if (next !== "delete") return next;
  if (await ctx.client.delete(migrations, scope.key, { uid }))
    ctx.log.info({ migration: scope.key }, "an old Migration was deleted");
  return undefined;
}
