/** An update that its node's agent is at: the operator keeps watch, gives up where it must, and says where it is. */
import { formatDuration } from "../../../crds/duration.ts";
import type { Handover } from "../../../crds/migration.ts";
import type { Problem } from "../../instance/facts.ts";
import { sourceOf, targetOf } from "../attempt.ts";
import { decideOperator } from "../handover.ts";
import type { Cause, MoveFacts, MovePlan } from "../plan.ts";
import { finish, lifeOf } from "../plan-steps.ts";
import { because, deadline, never, SILENT_MS, TAKE_UP_MS, TIMEOUT_SLACK_MS, type Watch, wishes } from "../plan-under-way.ts";
import { changeText } from "./runtimes.ts";

const nodeOf = ({ migration }: MoveFacts): string => migration.status?.sourceNode ?? "";

/** The guest's own claim: there is no other. */
function claimLost({ sourceClaim, migration }: MoveFacts): Watch {
  const { sourceClaim: recorded } = migration.status ?? {};
  const isThere = sourceClaim !== undefined && sourceClaim.uid === recorded?.uid;
  if (isThere && !sourceClaim.deleting && sourceClaim.ended === undefined) return never;
  return because("SourceClaimLost", `the guest's claim ${recorded?.name ?? ""} was lost`);
}

/** Why the operator gives the attempt up, if it does. All but a wish counts only before the agent has taken the right to pause. */
function watch(facts: MoveFacts, record: Handover): Watch {
  const wish = wishes(facts);
  if (wish !== undefined || record.state !== "Copying") return wish ?? never;
  const { source, migration } = facts;
  const node = nodeOf(facts);
  const silent = source.state === "Silent" ? source.message : "";
  const late = `the agent of node ${node} did not take the update up within ${formatDuration(TAKE_UP_MS)}`;
  const timeoutMs = migration.status?.policy?.timeoutMs ?? Number.POSITIVE_INFINITY;
  const tooLong = `it took longer than policy.timeout (${formatDuration(timeoutMs)})`;
  const all = [
    claimLost(facts),
    deadline(facts, "AgentSilent", source.state === "Silent", SILENT_MS, () => because("AgentSilent", silent, true)),
    deadline(facts, "AgentIdle", targetOf(migration) === undefined, TAKE_UP_MS, () => because("AgentIdle", late, true)),
    deadline(facts, "Copying", targetOf(migration) !== undefined, timeoutMs + TIMEOUT_SLACK_MS, () =>
      because("Timeout", tooLong),
    ),
  ];
  const lost = all.find(({ cause }) => cause !== undefined);
  return lost ?? { afterMs: Math.min(...all.map(({ afterMs }) => afterMs)) };
}

function words(facts: MoveFacts, record: Handover, cause: Cause | undefined): Problem {
  const { migration, source } = facts;
  const node = nodeOf(facts);
  const change = migration.status?.runtime;
  const way = change === undefined ? "" : `, ${changeText(change)}`;
  const silent = source.state === "Silent" ? `; waits for ${source.message}` : "";
  if (record.state !== "Copying") {
    const late = cause === undefined ? "" : `; too late to give it up (${cause.message})`;
    const rest = sourceOf(migration)?.message;
    const told = rest === undefined ? "" : `: ${rest}`;
    const reason = cause === undefined ? "SwitchingOver" : "TooLate";
    return { reason, message: `the guest is handed to the new QEMU on node ${node}${way}${told}${late}${silent}` };
  }
  const said = targetOf(migration);
  const why = said?.message === undefined ? "" : `: ${said.message}`;
  return { reason: said?.reason ?? "Preparing", message: `node ${node} prepares a new QEMU${way}${why}${silent}` };
}

/** Why the record becomes Source. */
function causeOf(facts: MoveFacts, cause: Cause | undefined): Problem {
  if (cause !== undefined) return cause;
  const said = targetOf(facts.migration);
  if (said?.state === "GivenUp")
    return { reason: said.reason ?? "TargetGaveUp", message: said.message ?? "its agent gave it up, and does not say why" };
  return { reason: "NodeDied", message: `node ${nodeOf(facts)} died` };
}

/** An update whose record says Copying or Handover. */
export function planUpdateUnderWay(facts: MoveFacts, record: Handover): MovePlan {
  const { migration, source } = facts;
  const life = lifeOf(source);
  const { cause, afterMs } = watch(facts, record);
  if (record.state !== "Copying") {
    // Only the agent knows which of the two runs. With the node both are gone, and the guest boots from its disks.
    if (life === "dead") {
      const message = `node ${nodeOf(facts)} died while QEMU was being replaced, and the guest with it`;
      return finish(facts, "Failed", { reason: "NodeDied", message });
    }
    return { step: { do: "wait" }, ...words(facts, record, cause) };
  }
  const decision = decideOperator({
    record,
    giveUp: cause !== undefined,
    retry: false,
    source: life,
    target: life,
    sourceSaid: migration.status?.source,
    targetSaid: migration.status?.target,
    keep: undefined,
  });
  if (decision.do === "write") {
    const { reason, message } = causeOf(facts, cause);
    const step = { do: "write" as const, from: decision.from, to: decision.to };
    return { step, reason: "GivingUp", message: `it is given up: ${message}`, progressing: { status: "False", reason, message } };
  }
  return { step: { do: "wait", afterMs: Number.isFinite(afterMs) ? afterMs : undefined }, ...words(facts, record, cause) };
}
