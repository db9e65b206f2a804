/** Carries out the plan for the claim: makes it, lets it go, and hears what the API server says to that. */
import { poolsOf } from "../../crds/disks.ts";
import { OPERATOR_MANAGER, claimName } from "../../crds/names.ts";
import { migrations } from "../../crds/resources.ts";
import { ApiError, resources, type Pod } from "../../kube/index.ts";
import { hasEnded } from "../migration/attempt.ts";
import { ensureBudget } from "./budget.ts";
import { claimPod } from "./claim.ts";
import { strayClaims, type ClaimPlan } from "./claim-plan.ts";
import type { ClaimSeen, Problem } from "./facts.ts";
import type { InstanceScope } from "./scope.ts";
import { isSharedPool, isUnbound, labelsOfPools } from "./shared.ts";

/** A quota or an admission policy that is relaxed tells nobody: the claim is tried again after this. */
const REFUSED_RETRY_MS = 15_000;
/** Nothing was ever started in it: it need not be given time to shut down. */
const UNUSED_GRACE_SECONDS = 1;
/** Nodes named in a claim at most; a pod with hundreds would be larger than all the rest of it. */
const AVOIDED_MAX = 16;

function avoidedNodes({ ctx, instance }: InstanceScope): string[] {
  const names = new Set(ctx.heartbeats.silentNodes());
  for (const pool of poolsOf(instance)) {
    if (!isSharedPool(pool, ctx.pools)) continue;
    for (const { metadata, status } of ctx.hosts.byIndex("pool", pool))
      if (status?.pools?.find(({ name }) => name === pool)?.ready === false) names.add(metadata.name);
  }
  for (const { metadata } of ctx.hosts.byIndex("ready", "False")) {
    if (names.size >= AVOIDED_MAX) break;
    names.add(metadata.name);
  }
  return [...names].sort().slice(0, AVOIDED_MAX);
}

/** What a user can mend: a quota, an admission policy, a wrong PriorityClass, a figure out of all proportion. Anything else is thrown. */
function refusal(error: unknown, name: string): Problem {
  if (error instanceof RangeError)
    return { reason: "SpecInvalid", message: `its claim ${name} cannot be made: ${error.message}` };
  if (!(error instanceof ApiError) || (error.code !== 403 && error.code !== 422 && error.code !== 400)) throw error;
  return { reason: "ClaimRefused", message: `the API server refused its claim ${name}: ${error.message}` };
}

/** The pod of that name, if it is the instance's own. */
async function adopt(scope: InstanceScope, name: string): Promise<Pod | Problem> {
  const { namespace, uid } = scope.instance.metadata;
  const pod = await scope.ctx.client.get(resources.pods, { namespace, name });
  if (pod === undefined) return { reason: "ClaimEnding", message: `an earlier claim ${name} has just ended; it is made again` };
  if (pod.metadata.ownerReferences?.some((owner) => owner.uid === uid && owner.controller === true) === true) return pod;
  return {
    reason: "ClaimNameTaken",
    message: `there is a pod ${name} that is not the instance's; delete it, or make the instance under another name`,
  };
}

async function create(scope: InstanceScope, serial: number): Promise<void> {
  const { ctx, instance } = scope;
  const free = isUnbound(instance, ctx.pools);
  const place = {
    serial,
    avoidNodes: avoidedNodes(scope),
    ...(free ? { poolLabels: labelsOfPools(poolsOf(instance), ctx.pools) } : { nodeName: instance.status?.nodeName }),
  };
  const name = claimName(instance.metadata.name, instance.metadata.uid, serial);
  try {
    const pod = claimPod(instance, place, ctx.settings);
    await ensureBudget(instance.metadata.namespace ?? "", ctx);
    const made = await ctx.client.create(resources.pods, pod, { manager: OPERATOR_MANAGER });
    ctx.recentClaims.put(made);
    ctx.log.info({ instance: scope.key, claim: name, serial }, "made a claim");
  } catch (error) {
    const there = error instanceof ApiError && error.reason === "AlreadyExists" ? await adopt(scope, name) : refusal(error, name);
    if ("metadata" in there) {
      ctx.recentClaims.put(there);
      return;
    }
    scope.problems.claim = there;
    scope.retryAfter(there.reason === "ClaimEnding" ? 1000 : REFUSED_RETRY_MS);
  }
}

/** Deletes this very pod, no later one of its name. */
export async function deleteClaim(scope: InstanceScope, claim: ClaimSeen, graceSeconds?: number): Promise<void> {
  const { ctx, instance } = scope;
  const { namespace } = instance.metadata;
  const key = { namespace, name: claim.name };
  await ctx.client.delete(resources.pods, key, { uid: claim.uid, gracePeriodSeconds: graceSeconds });
  ctx.log.info({ instance: scope.key, claim: claim.name }, "let a claim go");
  const pod = ctx.recentClaims.get(key);
  if (pod?.metadata.uid !== claim.uid) return;
  const deletionTimestamp = new Date(ctx.clock.now()).toISOString();
  ctx.recentClaims.put({ ...pod, metadata: { ...pod.metadata, deletionTimestamp } });
}

/** Whether a Migration that has not ended made this claim. Only the API server itself can say that there is none. */
async function belongsToMove({ ctx, instance }: InstanceScope, { migration: name }: ClaimSeen): Promise<boolean> {
  if (name === undefined) return false;
  const key = { namespace: instance.metadata.namespace, name };
  const migration = ctx.recentMigrations.get(key) ?? (await ctx.client.get(migrations, key));
  return migration !== undefined && !hasEnded(migration);
}

const wasUsed = (plan: ClaimPlan, claim: ClaimSeen): boolean => plan.record?.uid === claim.uid;

/** Takes the one step that the plan asks for. May be repeated: a claim's name is the same each time. */
export async function ensureClaim(scope: InstanceScope): Promise<void> {
  const plan = scope.plan;
  const { step } = plan;
  const guest = scope.guest;
  for (const claim of strayClaims({ seen: scope.claims, guest, move: scope.move }, plan.record)) {
    if (!(await belongsToMove(scope, claim))) await deleteClaim(scope, claim);
  }
  switch (step.do) {
    case "create":
      if (scope.problems.pool === undefined && scope.problems.network === undefined) await create(scope, step.serial);
      return;
    case "delete":
      return deleteClaim(scope, step.claim, wasUsed(plan, step.claim) ? undefined : UNUSED_GRACE_SECONDS);
    case "wait":
      if (step.retryAfterMs !== undefined) scope.retryAfter(step.retryAfterMs);
      return;
    case "keep":
      return ensureBudget(scope.instance.metadata.namespace ?? "", scope.ctx);
    case "nothing":
  }
}
