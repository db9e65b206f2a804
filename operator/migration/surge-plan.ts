/**
 * What a ResourceQuota must let through for the second claim of a move. Pure.
 * docs/decisions/0062-surge-of-a-move.md tells why it is status.hard that is raised, and for a moment only.
 */
import type { Pod, ResourceQuota } from "../../kube/index.ts";
import type { Problem } from "../instance/facts.ts";
import { formatQuantity, parseQuantity } from "./quantity.ts";

/** As a ResourceQuota counts: name of the resource there -> billionths. */
export type Usage = ReadonlyMap<string, bigint>;

type PodShape = Pick<Pod, "spec">;
type Side = "requests" | "limits";

function sum(pod: PodShape, side: Side): Map<string, bigint> {
  const sums = new Map<string, bigint>();
  for (const { resources } of pod.spec.containers) {
    for (const [name, text] of Object.entries(resources?.[side] ?? {})) {
      sums.set(name, (sums.get(name) ?? 0n) + parseQuantity(text));
    }
  }
  return sums;
}

/**
 * What a ResourceQuota counts for a pod.
 * @param like a pod that the API server has completed (by a LimitRange's defaults): what `pod` leaves out is taken from it
 */
export function usageOf(pod: PodShape, like?: PodShape): Usage {
  const usage = new Map([
    ["pods", parseQuantity("1")],
    ["count/pods", parseQuantity("1")],
  ]);
  for (const side of ["limits", "requests"] as const) {
    const all = new Map([...(like === undefined ? [] : onlyPlain(sum(like, side))), ...sum(pod, side)]);
    for (const [name, amount] of all) {
      usage.set(`${side}.${name}`, amount);
      // Without a prefix it is what is requested.
      if (side === "requests" && !name.includes("/")) usage.set(name, amount);
    }
  }
  return usage;
}

/** An extended resource is never a LimitRange's default; a claim asks for a pool's room only when its disk is made. */
const onlyPlain = (amounts: Map<string, bigint>): [string, bigint][] => [...amounts].filter(([name]) => !name.includes("/"));

/** Whether a quota's scopes take a claim in: it asks for resources, has no deadline, and has a PriorityClass. */
export function concerns({ spec }: Pick<ResourceQuota, "spec">, priorityClass: string | undefined): boolean {
  const simple = (scope: string): boolean =>
    scope === "NotBestEffort" || scope === "NotTerminating" || (scope === "PriorityClass" && priorityClass !== undefined);
  const byScopes = (spec?.scopes ?? []).every(simple);
  const bySelector = (spec?.scopeSelector?.matchExpressions ?? []).every(({ scopeName, operator, values = [] }) => {
    if (scopeName !== "PriorityClass") return simple(scopeName);
    const isOne = priorityClass !== undefined && values.includes(priorityClass);
    if (operator === "In") return isOne;
    if (operator === "NotIn") return !isOne;
    return (operator === "Exists") === (priorityClass !== undefined);
  });
  return byScopes && bySelector;
}

export interface SurgeFacts {
  quotas: readonly ResourceQuota[];
  /** What the new claim will use. */
  usage: Usage;
  /** What the claims of other moves of the namespace use, beyond those that the instances live in. */
  others: readonly Usage[];
  priorityClass: string | undefined;
  /** Whether a namespace that uses more than its quota, for whatever reason, is given the room all the same. */
  beyond: boolean;
}

/** One quota whose enforced limits are raised. */
export interface Raise {
  name: string;
  uid: string;
  /** As seen: what the owner wants. */
  spec: Readonly<Record<string, string>>;
  /** As seen: what is enforced. */
  before: Readonly<Record<string, string>>;
  /** What is to be enforced instead, for the resources that are raised. */
  hard: Readonly<Record<string, string>>;
}

/** Which quotas are to be raised, and to what: to what is used and what is asked for, no more. */
export function planSurge({ quotas, usage, others, priorityClass, beyond }: SurgeFacts): Raise[] | Problem {
  const raises: Raise[] = [];
  for (const quota of quotas) {
    const { name, uid = "" } = quota.metadata;
    const spec = quota.spec?.hard ?? {};
    const before = quota.status?.hard ?? {};
    if (quota.metadata.deletionTimestamp !== undefined || !concerns(quota, priorityClass)) continue;
    const hard: Record<string, string> = {};
    for (const [resource, enforced] of Object.entries(before)) {
      const asked = usage.get(resource);
      const wanted = spec[resource];
      if (asked === undefined || wanted === undefined) continue;
      const need = parseQuantity(quota.status?.used?.[resource] ?? "0") + asked;
      if (need <= parseQuantity(enforced)) continue;
      const surges = others.reduce((total, one) => total + (one.get(resource) ?? 0n), asked);
      if (!beyond && need > parseQuantity(wanted) + surges) return overused(quota, resource);
      hard[resource] = formatQuantity(need);
    }
    if (Object.keys(hard).length > 0) raises.push({ name, uid, spec, before, hard });
  }
  return raises;
}

function overused({ metadata, spec, status }: ResourceQuota, resource: string): Problem {
  const [used, wanted] = [status?.used?.[resource] ?? "0", spec?.hard?.[resource] ?? "0"];
  return {
    reason: "QuotaExceeded",
    message: `its namespace uses more than ResourceQuota ${metadata.name} allows (${resource}: ${used} of ${wanted}), even without the move; free some of it, or raise the quota`,
  };
}
