/** A move before it has begun: what must hold, whose turn it is, and a place at the target. */
import { findCondition } from "../../kube/index.ts";
import { isUnwanted, hasTurn, claimNameOf } from "./attempt.ts";
import { decideOperator } from "./handover.ts";
import type { MoveFacts, MovePlan } from "./plan.ts";
import { afterFailure, finish, lifeOf, waitFor } from "./plan-steps.ts";
import { checkInstance, checkTarget, diskPlan } from "./preflight.ts";
import type { Check } from "./check.ts";
import { isCold } from "./cold.ts";
import { staysOnNode, wayOf } from "./local.ts";
import { resolvePolicy } from "./settings.ts";
import type { Instance } from "../../crds/instance.ts";

const MINUTE = 60_000;
/** Room on another node may be made by hand, or by an autoscaler; a move that never finds any must end in words. */
const ROOM_MS = 10 * MINUTE;
/** An image is pulled, a sandbox is made. */
const HOLDER_MS = 5 * MINUTE;
/** A bound claim cannot go elsewhere: better another attempt than a long wait. */
const TARGET_BACK_MS = MINUTE;

/** It was stopped, or started, while the move waited. */
const POWER: ReadonlySet<string> = new Set(["InstanceStopped", "InstanceNotStopped"]);

/** Nobody wants it any more, or there is nothing that it could be about. */
export function unwanted(facts: MoveFacts): MovePlan | undefined {
  const { migration, instance } = facts;
  if (isUnwanted(migration))
    return finish(facts, "Cancelled", { reason: "Cancelled", message: "it was cancelled before it had begun" });
  const recorded = migration.status?.instanceUid;
  if (recorded === undefined || instance?.metadata.uid === recorded) return undefined;
  const message = `instance ${migration.spec.instance} was deleted`;
  return finish(facts, "Cancelled", { reason: "InstanceDeleted", message });
}

/** Another Migration of the same instance comes first. */
export function behind(facts: MoveFacts): MovePlan | undefined {
  if (facts.first === undefined) return undefined;
  const message = `waits for the end of the Migration ${facts.first.metadata.name} of the same instance`;
  return waitFor(facts, { reason: "WaitingForMigration", message });
}

/** Carries on where a check lets it, ends where it does not. */
export function hold(facts: MoveFacts, check: Check): MovePlan | undefined {
  if (check.state === "ok") return undefined;
  if (check.state === "fail") {
    const wished = check.reason === "InstanceDeleted" || (POWER.has(check.reason) && hasTurn(facts.migration));
    return finish(facts, wished ? "Cancelled" : "Failed", check);
  }
  const { forMs } = check;
  return waitFor(facts, check, forMs === undefined ? undefined : { forMs, late: (late) => finish(facts, "Failed", late) });
}

/** After an attempt that failed: when the next one begins. The first is waited for `firstMs`, and each further one twice as long. */
export function planBackoff(facts: MoveFacts, firstMs = facts.settings.backoff.firstMs): MovePlan | undefined {
  const { migration, now, settings } = facts;
  const retries = migration.status?.retries ?? 0;
  const failed = findCondition(migration.status?.conditions, "Progressing");
  if (retries === 0 || failed?.status !== "False") return undefined;
  const { mostMs } = settings.backoff;
  const at = Date.parse(failed.lastTransitionTime) + Math.min(mostMs, firstMs * 2 ** (retries - 1));
  if (now >= at) return undefined;
  const when = new Date(at).toISOString().slice(11, 19);
  const message = `attempt ${retries + 1} of ${settings.retries + 1} begins at ${when} UTC; the one before failed: ${failed.message}`;
  return { step: { do: "wait", afterMs: at - now }, reason: "BackingOff", message };
}

/** Its turn, before anything is made for it. */
function planTurn(facts: MoveFacts, instance: Instance): MovePlan {
  const { migration, now } = facts;
  const turn = facts.askTurn(migration.spec.target?.node);
  if (!turn.granted) return waitFor(facts, turn);
  return {
    step: { do: "note" },
    reason: "Scheduling",
    message: "kube-scheduler looks for a node",
    set: {
      instanceUid: instance.metadata.uid,
      startedAt: migration.status?.startedAt ?? new Date(now).toISOString(),
      sourceNode: instance.status?.nodeName,
      targetClaim: { name: claimNameOf(migration) },
    },
    progressing: { status: "True", reason: "Placing", message: "it has its turn" },
  };
}

/** A claim that was refused is tried again without another word. */
function saidBefore({ migration }: MoveFacts): { reason: string; message: string } {
  const ready = findCondition(migration.status?.conditions, "Ready");
  return { reason: ready?.reason ?? "Scheduling", message: ready?.message ?? "kube-scheduler looks for a node" };
}

/** A place at the target: the claim, bound. Its holder starts while the target prepares, whose agent lets no guest come before it runs. */
function planPlace(facts: MoveFacts, instance: Instance): MovePlan | { node: string; uid: string } {
  const { claim, migration, refused } = facts;
  const lost = (reason: string, message: string): MovePlan => afterFailure(facts, { reason, message, retryable: true });
  if (claim === undefined) {
    if (refused === undefined) return { step: { do: "create-claim" }, ...saidBefore(facts) };
    return waitFor(facts, refused, { forMs: ROOM_MS, late: (late) => finish(facts, "Failed", late) });
  }
  if (claim.deleting) return lost("TargetClaimLost", `its claim ${claim.name} at the target is being deleted`);
  if (claim.ended !== undefined)
    return lost(
      "TargetClaimLost",
      `node ${claim.node ?? "(none)"} refused its claim ${claim.name} (${claim.ended.reason}): ${claim.ended.message}`,
    );
  if (claim.node === undefined) {
    if (claim.unscheduled === undefined)
      return waitFor(facts, { reason: "Scheduling", message: "kube-scheduler looks for a node" });
    const words = { reason: claim.unscheduled.reason, message: `no node has room for it: ${claim.unscheduled.message}` };
    return waitFor(facts, words, { forMs: ROOM_MS, late: (late) => finish(facts, "Failed", { ...late, reason: "NoRoom" }) });
  }
  const check = checkTarget(migration, instance, facts.nodeFacts(claim.node));
  if (check.state === "fail") return lost(check.reason, check.message);
  if (check.state === "wait")
    return waitFor(facts, check, { forMs: TARGET_BACK_MS, late: ({ reason, message }) => lost(reason, message) });
  if (instance.status?.nodeName === claim.node && !claim.holderRunning) {
    // A guest that stays on its node is taken over into this claim by the agent that copies: nobody else waits for it.
    const words = { reason: "HolderStarting", message: `the holder of its claim on node ${claim.node} is being started` };
    return waitFor(facts, words, { forMs: HOLDER_MS, late: ({ reason, message }) => lost(reason, message) });
  }
  if (migration.spec.target?.node === undefined) {
    const turn = facts.askTurn(claim.node);
    if (!turn.granted) return waitFor(facts, turn);
  }
  return { node: claim.node, uid: claim.uid };
}

/** A move of which no agent has been told yet in this attempt. */
export function planBefore(facts: MoveFacts, attempt: number): MovePlan {
  const { migration, instance } = facts;
  const away = unwanted(facts);
  if (away !== undefined) return away;
  const held = hold(facts, checkInstance(facts));
  if (held !== undefined || instance === undefined) return held ?? waitFor(facts, { reason: "InstanceNotFound", message: "" });
  const later = behind(facts);
  if (later !== undefined) return later;
  const stays = staysOnNode(migration, instance, facts.nodesWith);
  const named = stays ? instance.status?.nodeName : migration.spec.target?.node;
  const unfit = named === undefined ? undefined : hold(facts, checkTarget(migration, instance, facts.nodeFacts(named)));
  if (unfit !== undefined) return unfit;
  if (!hasTurn(migration)) return planBackoff(facts) ?? planTurn(facts, instance);
  const place = planPlace(facts, instance);
  return "step" in place ? place : planBegin(facts, instance, attempt, place);
}

function planBegin(
  facts: MoveFacts,
  instance: Instance,
  attempt: number,
  { node, uid }: { node: string; uid: string },
): MovePlan {
  const { migration, source, settings } = facts;
  const record = migration.status?.handover;
  const decision = decideOperator({
    record,
    giveUp: false,
    retry: true,
    source: lifeOf(source),
    // The target of the attempt before was through, or dead, when this one was counted. One that is back since has no say in a
    // Migration that names it no more; what it still has of that attempt it clears away before it begins anything.
    target: "dead",
    sourceSaid: migration.status?.source,
    targetSaid: migration.status?.target,
    keep: undefined,
  });
  const stays = instance.status?.nodeName === node;
  const words = { reason: "Preparing", message: `node ${node} prepares for the ${stays ? "disk" : "guest"}` };
  if (record !== undefined && decision.do !== "write")
    return waitFor(facts, { ...words, message: "the attempt before is not over yet" });
  const { claim, nodeName } = instance.status ?? {};
  const cold = isCold(migration);
  if (nodeName === undefined || (!cold && claim?.uid === undefined)) return waitFor(facts, words);
  const early = cold ? facts.otherClaims.at(0) : undefined;
  if (early !== undefined)
    return waitFor(facts, { reason: "InstanceNotStopped", message: `waits for the end of its claim ${early.name}` });
  const disks = diskPlan(migration, instance, facts.isShared, stays);
  return {
    step: { do: "begin", from: record, to: { attempt, state: "Copying" } },
    ...words,
    set: {
      sourceNode: nodeName,
      targetNode: node,
      sourceClaim: cold || claim === undefined ? undefined : { name: claim.name, uid: claim.uid },
      targetClaim: { name: claimNameOf(migration), uid },
      disks,
      policy: resolvePolicy(migration.spec, settings),
    },
    progressing: {
      status: "True",
      reason: "Moving",
      message: wayOf({ status: { sourceNode: nodeName, targetNode: node, disks } }),
    },
  };
}
