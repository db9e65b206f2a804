/**
 * Makes the second claim of a move although the namespace's own ResourceQuota is full: for the time of a move the instance is counted
 * twice, and no tenant should have to keep room free for that. What a quota enforces (status.hard) is raised by what this one pod asks
 * for, and put back as soon as the pod is there; what its owner wrote (spec) is never touched.
 */
import { CLAIM_LABEL, MIGRATION_LABEL, OPERATOR_MANAGER } from "../../crds/names.ts";
import {
  ApiError,
  errorText,
  resources,
  sleep,
  type Clock,
  type Draft,
  type JsonPatchOp,
  type KubeClient,
  type Logger,
  type Pod,
  type ResourceQuota,
} from "../../kube/index.ts";
import type { Problem } from "../instance/facts.ts";
import { planSurge, usageOf, type Raise } from "./surge-plan.ts";

export interface SurgeContext {
  client: Pick<KubeClient, "create" | "get" | "list" | "patchJson">;
  clock: Clock;
  log: Logger;
}

/** Who raised a quota's status, in its managed fields: the next leader finds it there. */
const MANAGER = "drover-surge";
/** The quota controller may put a raised limit back at any time; then it is raised again. */
const ROUNDS = 4;
/** An API server hears of a raised limit by its own watch: some milliseconds. */
const HEARD_MS = 1_000;
const STEP_MS = 40;

/** The namespace has no room for a second claim, and is not given any. */
export class QuotaError extends Error {
  override readonly name = "QuotaError";
  readonly problem: Problem;

  constructor(problem: Problem, cause: unknown) {
    super(problem.message, { cause });
    this.problem = problem;
  }
}

const isFull = (error: unknown): boolean =>
  error instanceof ApiError && error.code === 403 && error.message.includes("exceeded quota");

/** Somebody writes the quota all the time: the API server could not count the pod in it, and gave up after some tries. Not AlreadyExists. */
const isBusy = (error: unknown): boolean => error instanceof ApiError && error.isConflict && error.reason === "Conflict";

/** It may be otherwise in a moment. */
const passes = (error: unknown): boolean => isFull(error) || isBusy(error);

/** One at a time in a namespace: two that raise the same quota would take each other's room. */
const lines = new Map<string, Promise<unknown>>();

async function inLine<T>(namespace: string, work: () => Promise<T>): Promise<T> {
  const before = lines.get(namespace) ?? Promise.resolve();
  const mine = before.then(work, work);
  const settled = mine.catch(() => undefined);
  lines.set(namespace, settled);
  try {
    return await mine;
  } finally {
    if (lines.get(namespace) === settled) lines.delete(namespace);
  }
}

/**
 * Creates a claim pod; throws what the API server said, or a QuotaError. Not to be repeated blindly (409 AlreadyExists).
 * @param options.beyond also where the namespace uses more than its quota without any move: for a drain, which must not be held up by
 *   what a tenant did
 */
export async function createBeyondQuota(draft: Draft<Pod>, ctx: SurgeContext, options: { beyond: boolean }): Promise<Pod> {
  const create = () => ctx.client.create(resources.pods, draft, { manager: OPERATOR_MANAGER });
  try {
    return await create();
  } catch (error) {
    if (!passes(error)) throw error;
  }
  return inLine(draft.metadata.namespace ?? "", () => createRaised(draft, create, ctx, options.beyond));
}

async function createRaised(draft: Draft<Pod>, create: () => Promise<Pod>, ctx: SurgeContext, beyond: boolean): Promise<Pod> {
  let refused: unknown;
  for (let round = 0; round < ROUNDS; round++) {
    const plan = await planFor(draft, ctx, beyond);
    if ("reason" in plan) throw new QuotaError(plan, refused);
    const raised: Raise[] = [];
    try {
      for (const one of plan) if (await raise(draft.metadata.namespace, one, ctx)) raised.push(one);
      return await whenHeard(create, ctx.clock);
    } catch (error) {
      if (!passes(error)) throw error;
      refused = error;
    } finally {
      for (const one of raised) await lower(draft.metadata.namespace, one.name, ctx);
    }
  }
  throw refused;
}

async function planFor(draft: Draft<Pod>, { client }: SurgeContext, beyond: boolean): Promise<Raise[] | Problem> {
  const { namespace, name, labels } = draft.metadata;
  const [quotas, claims] = await Promise.all([
    client.list(resources.resourceQuotas, { namespace }),
    client.list(resources.pods, { namespace, labelSelector: CLAIM_LABEL }),
  ]);
  const other = claims.filter((pod) => pod.metadata.name !== name);
  const present = other.find(({ metadata }) => metadata.labels?.[CLAIM_LABEL] === labels?.[CLAIM_LABEL]);
  const surges = other.filter(
    ({ metadata }) => metadata.labels?.[MIGRATION_LABEL] !== undefined || metadata.deletionTimestamp !== undefined,
  );
  // What we make ourselves is whole, whatever the type of a draft allows.
  const pod = draft as Pick<Pod, "spec">;
  return planSurge({
    quotas,
    usage: usageOf(pod, present),
    others: surges.map((one) => usageOf(one)),
    priorityClass: pod.spec.priorityClassName,
    beyond,
  });
}

const pointer = (resource: string): string => `/status/hard/${resource.replaceAll("~", "~0").replaceAll("/", "~1")}`;

/** False when somebody else wrote the quota meanwhile, or it is gone: then it is looked at again. */
async function raise(
  namespace: string | undefined,
  { name, uid, spec, before, hard }: Raise,
  ctx: SurgeContext,
): Promise<boolean> {
  const patch: JsonPatchOp[] = [
    { op: "test", path: "/metadata/uid", value: uid },
    { op: "test", path: "/spec/hard", value: spec },
    { op: "test", path: "/status/hard", value: before },
    ...Object.entries(hard).map(([resource, value]) => ({ op: "replace" as const, path: pointer(resource), value })),
  ];
  const done = await compareAndSet(namespace, name, patch, ctx);
  if (done) ctx.log.info({ namespace, quota: name, hard }, "a quota gives room for the second claim of a move");
  return done;
}

async function compareAndSet(
  namespace: string | undefined,
  name: string,
  patch: readonly JsonPatchOp[],
  { client }: SurgeContext,
): Promise<boolean> {
  try {
    await client.patchJson(resources.resourceQuotas, { namespace, name }, patch, { subresource: "status", manager: MANAGER });
    return true;
  } catch (error) {
    if (error instanceof ApiError && (error.isConflict || error.isNotFound || error.code === 422)) return false;
    throw error;
  }
}

/** Creates, again and again for a moment, until the API server that answers has heard of the raised quota. */
async function whenHeard(create: () => Promise<Pod>, clock: Clock): Promise<Pod> {
  const until = clock.monotonic() + HEARD_MS;
  for (;;) {
    try {
      return await create();
    } catch (error) {
      if (!passes(error) || clock.monotonic() >= until) throw error;
    }
    await sleep(clock, STEP_MS);
  }
}

/**
 * Has a quota enforce again what its owner wrote. Never throws: Kubernetes' own quota controller does the same at its next look, within
 * five minutes, and a new leader at once.
 */
async function lower(namespace: string | undefined, name: string, ctx: SurgeContext): Promise<void> {
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const quota = await ctx.client.get(resources.resourceQuotas, { namespace, name });
      const raised = quota === undefined ? [] : raisedIn(quota);
      if (quota === undefined || raised.length === 0) return;
      const { spec, status, metadata } = quota;
      const patch: JsonPatchOp[] = [
        { op: "test", path: "/metadata/uid", value: metadata.uid },
        { op: "test", path: "/spec/hard", value: spec?.hard },
        { op: "test", path: "/status/hard", value: status?.hard },
        ...raised.map(([resource, value]) => ({ op: "replace" as const, path: pointer(resource), value })),
      ];
      if (await compareAndSet(namespace, name, patch, ctx)) return;
    }
    ctx.log.warn({ namespace, quota: name }, "a quota is written all the time; its controller puts the limits back");
  } catch (error) {
    ctx.log.warn({ namespace, quota: name, error: errorText(error) }, "a quota's limits are put back by its controller");
  }
}

/** Resources of which something else is enforced than the owner wrote, with what he wrote. */
const raisedIn = ({ spec, status }: ResourceQuota): [string, string][] =>
  Object.entries(spec?.hard ?? {}).filter(([resource, wanted]) => (status?.hard?.[resource] ?? wanted) !== wanted);

/**
 * Puts back what an earlier leader raised and, being killed in that moment, did not put back. Once, when a term starts. Never throws:
 * what it misses is put back by Kubernetes' own quota controller.
 */
export async function settleQuotas(ctx: SurgeContext): Promise<void> {
  try {
    const quotas = await ctx.client.list(resources.resourceQuotas);
    const ours = quotas.filter(({ metadata }) => metadata.managedFields?.some(({ manager }) => manager === MANAGER));
    for (const one of ours) if (raisedIn(one).length > 0) await lower(one.metadata.namespace, one.metadata.name, ctx);
  } catch (error) {
    ctx.log.warn({ error: errorText(error) }, "the quotas could not be looked at");
  }
}
