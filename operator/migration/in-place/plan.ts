/** The next step of an update in place, and what is to be said of it. It takes no place on any node and no second claim. Pure, as plan.ts. */
import type { Handover, RuntimeChange } from "../../../crds/migration.ts";
import type { Instance } from "../../../crds/instance.ts";
import { hasTurn } from "../attempt.ts";
import { decideOperator } from "../handover.ts";
import type { MoveFacts, MovePlan } from "../plan.ts";
import { behind, hold, planBackoff, unwanted } from "../plan-before.ts";
import { finish, lifeOf, waitFor } from "../plan-steps.ts";
import { planUpdated, planUpdateGivenUp } from "./plan-after.ts";
import { planUpdateUnderWay } from "./plan-under-way.ts";
import { updatePolicy } from "./policy.ts";
import { checkUpdate } from "./preflight.ts";
import { changeText } from "./runtimes.ts";

/** At most, for an attempt costs a second and moves nothing: the next one need not wait for as long as that of a move. */
const RETRY_MS = 2_000;

/** An update that has not ended. `record`: who owns the guest in this attempt; undefined before it has begun. */
export function planUpdate(facts: MoveFacts, record: Handover | undefined, attempt: number): MovePlan {
  if (record === undefined) return planBefore(facts, attempt);
  switch (record.state) {
    case "Copying":
    case "Handover":
    case "Target":
      return planUpdateUnderWay(facts, record);
    case "Done":
      return planUpdated(facts, record);
    case "Source":
    default:
      return planUpdateGivenUp(facts, record);
  }
}

/** Its turn: from here on no other Migration of the instance begins. */
function planTurn(facts: MoveFacts, instance: Instance): MovePlan {
  const { claim, nodeName } = instance.status ?? {};
  const turn = facts.askTurn(nodeName);
  if (!turn.granted) return waitFor(facts, turn);
  return {
    step: { do: "note" },
    reason: "Preparing",
    message: "it has its turn",
    set: {
      instanceUid: instance.metadata.uid,
      startedAt: facts.migration.status?.startedAt ?? new Date(facts.now).toISOString(),
      sourceNode: nodeName,
      targetClaim: claim === undefined ? undefined : { name: claim.name, uid: claim.uid },
    },
    progressing: { status: "True", reason: "Placing", message: "it has its turn" },
  };
}

function planBefore(facts: MoveFacts, attempt: number): MovePlan {
  const { migration, instance, source } = facts;
  const away = unwanted(facts);
  if (away !== undefined) return away;
  const { host } = facts.nodeFacts(instance?.status?.nodeName ?? "");
  const check = checkUpdate({ migration, instance, source, host });
  const held = check.state === "wait" || check.state === "fail" ? hold(facts, check) : behind(facts);
  if (held !== undefined || instance === undefined) return held ?? waitFor(facts, { reason: "InstanceNotFound", message: "" });
  if (check.state === "current") return finish(facts, "Succeeded", check);
  if (check.state !== "ok") return waitFor(facts, check);
  if (!hasTurn(migration)) {
    const firstMs = Math.min(RETRY_MS, facts.settings.backoff.firstMs);
    return planBackoff(facts, firstMs) ?? planTurn(facts, instance);
  }
  return planBegin(facts, instance, attempt, check.change);
}

function planBegin(facts: MoveFacts, instance: Instance, attempt: number, change: RuntimeChange): MovePlan {
  const { migration, source } = facts;
  const { claim, nodeName = "" } = instance.status ?? {};
  const record = migration.status?.handover;
  const words = { reason: "Preparing", message: `node ${nodeName} prepares a new QEMU, ${changeText(change)}` };
  const life = lifeOf(source);
  const decision = decideOperator({
    record,
    giveUp: false,
    retry: true,
    source: life,
    target: life,
    sourceSaid: migration.status?.source,
    targetSaid: migration.status?.target,
    keep: undefined,
  });
  if (record !== undefined && decision.do !== "write")
    return waitFor(facts, { ...words, message: "the attempt before is not over yet" });
  if (claim?.uid === undefined) return waitFor(facts, words);
  const { name, uid } = claim;
  return {
    step: { do: "begin", from: record, to: { attempt, state: "Copying" } },
    ...words,
    set: {
      sourceNode: nodeName,
      targetNode: nodeName,
      sourceClaim: { name, uid },
      targetClaim: { name, uid },
      disks: [],
      policy: updatePolicy(migration.spec, facts.updates),
      runtime: change,
      guestRestarts: instance.status?.guest?.restarts ?? 0,
    },
    progressing: { status: "True", reason: "Updating", message: changeText(change) },
  };
}
