/** Deletion, in order: what runs on the node, then ports, then claims, then the finalizer. */
import { CLAIM_LABEL, INSTANCE_FINALIZER } from "../../crds/names.ts";
import type { Instance } from "../../crds/instance.ts";
import { instances } from "../../crds/resources.ts";
import { errorText, removeFinalizer, resources } from "../../kube/index.ts";
import { dropBudget } from "./budget.ts";
import { deleteClaim } from "./ensure-claim.ts";
import { claimSeen, type ClaimSeen, type NodeSeen, type Problem } from "./facts.ts";
import type { InstanceScope } from "./scope.ts";
import { writeStatus } from "./write-status.ts";

const OVN_RETRY_MS = 10_000;

/** What has to be released on a node, and by whom. */
export type NodeRelease =
  /** No agent was ever told of it, or its agent has released all. */
  | { state: "Released" }
  /** The node will not come back: there is nobody to ask, and nothing left to release. */
  | { state: "Abandoned"; nodeName: string }
  | ({ state: "Waiting" } & Problem);

/** Whether the node has let go. Pure. Only a deleted Node object counts as gone for good; a silent or fenced one may come back. */
export function nodeRelease(nodeName: string | undefined, guestState: string | undefined, node: NodeSeen): NodeRelease {
  if (nodeName === undefined || guestState === "Released") return { state: "Released" };
  if (node.state === "Gone") return { state: "Abandoned", nodeName };
  const wait = `waiting for the agent of node ${nodeName} to shut its guest down and remove its disks`;
  if (node.state === "Answering") return { state: "Waiting", reason: "Deleting", message: wait };
  const hint = `should the node never come back, delete its Node object: the instance is then let go, its disks with the node`;
  return { state: "Waiting", reason: node.reason, message: `${wait}; ${node.message}; ${hint}` };
}

/** Ports are made once node and addresses stand in the status: without either there are none, and OVN need not be asked. Pure. */
export const mayHavePorts = ({ spec, status }: Instance): boolean =>
  status?.nodeName !== undefined && ((spec.nics ?? []).length > 0 || (status.nics ?? []).length > 0);

async function releasePorts(scope: InstanceScope): Promise<boolean> {
  if (!mayHavePorts(scope.instance)) return true;
  try {
    await scope.ctx.network.ports.removePorts(scope.instance);
    return true;
  } catch (error) {
    const message = `its ports cannot be removed from OVN: ${errorText(error)}; it is tried again`;
    scope.problems.release = { reason: "OVNUnreachable", message };
    scope.retryAfter(OVN_RETRY_MS);
    return false;
  }
}

/** Every claim of the instance, from the API server itself: a cache that is behind must not leave a pod that nobody may delete. */
async function claimsLeft({ ctx, instance }: InstanceScope): Promise<ClaimSeen[]> {
  const { namespace, name, uid } = instance.metadata;
  const labelled = await ctx.client.list(resources.pods, { namespace, labelSelector: `${CLAIM_LABEL}=${name}` });
  return labelled.filter(({ metadata }) => metadata.ownerReferences?.some((owner) => owner.uid === uid) === true).map(claimSeen);
}

async function releaseClaims(scope: InstanceScope, graceSeconds: number | undefined): Promise<boolean> {
  const cached = scope.claims;
  for (const claim of cached) if (!claim.deleting) await deleteClaim(scope, claim, graceSeconds);
  const left = cached.length > 0 ? cached : await claimsLeft(scope);
  if (left.length === 0) return true;
  if (cached.length === 0) {
    for (const claim of left) if (!claim.deleting) await deleteClaim(scope, claim, graceSeconds);
    scope.retryAfter(1000);
  }
  const names = left.map(({ name }) => name).join(", ");
  scope.problems.release = { reason: "ClaimEnding", message: `waiting for its claim ${names} to end` };
  return false;
}

async function letGo(scope: InstanceScope): Promise<void> {
  const { ctx, instance } = scope;
  const { uid, namespace = "" } = instance.metadata;
  await dropBudget(namespace, ctx);
  await removeFinalizer(ctx.client, instances, instance, INSTANCE_FINALIZER);
  ctx.network.addresses.release(uid);
  ctx.pace.forget(uid);
  ctx.events.event(instance, "Normal", "Released", "Release", "everything of it is gone: processes, disks, ports and claim");
  ctx.log.info({ instance: scope.key }, "released");
}

/** Releases everything that the instance holds. A step that fails keeps the finalizer, and comes again. */
export async function release(scope: InstanceScope): Promise<void> {
  const { ctx, instance } = scope;
  if (instance.metadata.finalizers?.includes(INSTANCE_FINALIZER) !== true) return;
  const { move } = scope;
  if (move?.state !== undefined) {
    // It is given up, or has arrived; until then both nodes may have something of the instance.
    scope.problems.release = { reason: "Migrating", message: `waiting for the end of the Migration ${move.name}` };
    return writeStatus(scope);
  }
  const nodeName = instance.status?.nodeName;
  const held = nodeRelease(nodeName, scope.guest?.state, scope.nodeOf(nodeName));
  if (held.state === "Waiting") {
    scope.problems.release = { reason: held.reason, message: held.message };
    return writeStatus(scope);
  }
  if (held.state === "Abandoned") {
    const note = `node ${held.nodeName} is no longer in the cluster: let go without its agent; what lay on the node was not removed`;
    ctx.events.event(instance, "Warning", "ReleasedWithoutAgent", "Release", note);
  }
  // A kubelet that is gone ends no pod; where no agent was told, nothing runs. Else the agent ends the holder at once.
  const grace = held.state === "Abandoned" ? 0 : nodeName === undefined ? 1 : undefined;
  if ((await releasePorts(scope)) && (await releaseClaims(scope, grace))) return letGo(scope);
  return writeStatus(scope);
}
