/** Judges one eviction: looks the claim up, notes that it was asked to go, says why it may not. */
import type { Instance } from "../../crds/instance.ts";
import type { Migration } from "../../crds/migration.ts";
import { CLAIM_LABEL } from "../../crds/names.ts";
import { instances, migrations } from "../../crds/resources.ts";
import {
  ApiError,
  errorText,
  keyText,
  resources,
  type KubeClient,
  type Logger,
  type ObjectKey,
  type Pod,
} from "../../kube/index.ts";
import type { Caches } from "../context.ts";
import { nodeSeen } from "../nodes.ts";
import { judgeEviction, type EvictionFacts, type Verdict } from "./judge.ts";
import { askedNow, askedOf, notePatch, worthNoting } from "./notes.ts";
import type { EvictionAsked } from "./review.ts";

export interface EvictionContext {
  /** Not the leader's: every replica answers. */
  client: Pick<KubeClient, "get" | "list" | "patchMerge">;
  caches: Pick<Caches, "claims" | "instances" | "migrations" | "nodes">;
  log: Logger;
  /** ms since 1970 */
  now: () => number;
  deadlineMs: number;
}

interface Found {
  pod: Pod;
  instance: Instance | undefined;
  moves: Migration[];
}

const ownerOf = (pod: Pod) =>
  pod.metadata.ownerReferences?.find(({ kind, controller }) => kind === "Instance" && controller === true);

const owned = (instance: Instance | undefined, uid: string | undefined): Instance | undefined =>
  instance?.metadata.uid === uid ? instance : undefined;

function fromCaches(key: ObjectKey, { caches }: EvictionContext): Found | undefined {
  const pod = caches.claims.get(key);
  const owner = pod === undefined ? undefined : ownerOf(pod);
  if (pod === undefined || owner === undefined) return undefined;
  const about = { namespace: key.namespace, name: owner.name };
  return {
    pod,
    instance: owned(caches.instances.get(about), owner.uid),
    moves: caches.migrations.byIndex("instance", keyText(about)),
  };
}

/** From the API server itself; undefined: there is no such pod, or it is no claim of Drover's. */
async function fromServer(key: ObjectKey, { client }: EvictionContext): Promise<Found | undefined> {
  const pod = await client.get(resources.pods, key);
  const owner = pod === undefined ? undefined : ownerOf(pod);
  if (pod === undefined || owner === undefined || pod.metadata.labels?.[CLAIM_LABEL] === undefined) return undefined;
  const about = { namespace: key.namespace, name: owner.name };
  const [instance, moves] = await Promise.all([
    client.get(instances, about),
    client.list(migrations, { namespace: key.namespace, fieldSelector: `spec.instance=${owner.name}` }),
  ]);
  return { pod, instance: owned(instance, owner.uid), moves };
}

/** Keeps that it was asked to go. A note that fails costs one round: whoever evicts asks again. */
async function note(asked: EvictionAsked, pod: Pod, { client, log, now }: EvictionContext): Promise<void> {
  const { uid } = pod.metadata;
  const before = askedOf(pod);
  if (asked.dryRun || uid === undefined || !worthNoting(before, now())) return;
  const key = { namespace: asked.namespace, name: asked.name };
  try {
    await client.patchMerge(resources.pods, key, notePatch(uid, askedNow(before, now())));
    log.info({ claim: keyText(key), since: before?.first }, "a claim was asked to go");
  } catch (error) {
    if (error instanceof ApiError && (error.isConflict || error.isNotFound)) return;
    log.warn({ claim: keyText(key), error: errorText(error) }, "that a claim was asked to go could not be noted");
  }
}

/**
 * What is said to an eviction: undefined allows it, else why not. A claim is only ever allowed to go by what the API server itself
 * says, never by a cache. Throws when the API server does not answer.
 */
export async function judge(asked: EvictionAsked, ctx: EvictionContext): Promise<string | undefined> {
  const key = { namespace: asked.namespace, name: asked.name };
  const verdictOf = (found: Found): Verdict => {
    const { nodeName } = found.pod.spec;
    // What an agent's silence means is the leader's business; here the node's own word is enough.
    const node: EvictionFacts["node"] =
      nodeName === undefined
        ? { state: "Answering" }
        : nodeSeen({ nodes: ctx.caches.nodes, heartbeats: { silence: () => undefined, isBack: () => true } }, nodeName);
    const { graceSeconds } = asked;
    return judgeEviction({ ...found, node, graceSeconds, now: ctx.now(), deadlineMs: ctx.deadlineMs });
  };
  let found = fromCaches(key, ctx);
  let verdict = found && verdictOf(found);
  if (verdict === undefined || verdict.allow) {
    found = await fromServer(key, ctx);
    verdict = found && verdictOf(found);
  }
  if (found === undefined || verdict === undefined || verdict.allow) return undefined;
  if (verdict.note) await note(asked, found.pod, ctx);
  return verdict.message;
}
