/** The one place where an instance's status is computed: all of it but `guest`, which is the agent's. */
import { disksOf } from "../../crds/disks.ts";
import type { InstanceStatus } from "../../crds/instance.ts";
import { setCondition } from "../../kube/index.ts";
import { computeConditions } from "./conditions.ts";
import { computePhase, type StatusFacts } from "./phase.ts";

export type OwnStatus = Omit<InstanceStatus, "guest">;

/** The status that the operator writes, from spec, claim, guest, node and network. Pure: the same facts give the same status. */
export function computeStatus(facts: StatusFacts): OwnStatus {
  const { instance, plan, nodeName, nics, move, past, now } = facts;
  const phase = computePhase(facts);
  const observedGeneration = instance.metadata.generation;
  const verdicts = computeConditions(facts, phase);
  const conditions = verdicts.reduce(
    (list, [type, verdict]) => setCondition(list, { type, ...verdict, observedGeneration }, now),
    instance.status?.conditions ?? [],
  );
  const readyReason = verdicts.find(([type]) => type === "Ready")?.[1].reason;
  const ip = nics[0]?.ipv4 ?? nics[0]?.ipv6;
  return {
    observedGeneration,
    phase: phase.phase,
    reason: readyReason ?? phase.reason,
    conditions,
    nodeName,
    // A claim that could not be made yet is not worth a name.
    claim: plan.step.do === "create" && instance.status?.claim === undefined ? undefined : plan.record,
    ip,
    ...(nics.length === 0 ? {} : { nics }),
    disks: disksNow(facts),
    migration: move === undefined ? undefined : { name: move.name, uid: move.uid },
    lastMigration: past?.lastMigration,
    earlierMigrations: past?.earlierMigrations,
  };
}

/** Where its disks lie, as far as that is not where the spec says. */
function disksNow({ instance, plan, move }: StatusFacts): InstanceStatus["disks"] {
  const arrived = move?.cold === true || (plan.record?.uid !== undefined && plan.record.uid === move?.targetClaim.uid);
  if (move?.state !== "Done" || move.inPlace || !arrived) return instance.status?.disks;
  const made = new Map(disksOf({ spec: instance.spec }).map(({ name, pool }) => [name, pool]));
  const elsewhere = move.disks.filter(({ name, pool }) => made.get(name) !== pool);
  return elsewhere.length === 0 ? undefined : elsewhere;
}

/** The part of a status that is the operator's. */
export function ownStatus(status: InstanceStatus | undefined): OwnStatus {
  const { guest: _, ...own } = status ?? {};
  return own;
}
