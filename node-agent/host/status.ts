/** What a node says of itself, from what is known of it. Pure. */
import { isDeepStrictEqual } from "node:util";
import type { HostPool, HostRuntime, HostStatus } from "../../crds/host.ts";
import { setCondition, type Condition } from "../../kube/index.ts";

/** What this node runs guests with; found out by a probe. */
export interface HostFacts {
  accelerator: "KVM" | "TCG";
  acceleratorMessage?: string;
  qemuVersion: string;
  runtimeVersion: string;
  machineTypes: string[];
  cpuModel: string;
}

export interface HostSeen {
  /** Undefined while the probe runs, or when it failed: then what was said before still holds. */
  facts: HostFacts | undefined;
  /** Why instances cannot be run; undefined: nothing is known against it. */
  trouble: { reason: string; message: string } | undefined;
  ovsDatapath: "kernel" | "userspace" | undefined;
  pools: readonly HostPool[];
  /** False: some pools were not looked at yet, and what was said of them before still holds. */
  poolsSettled: boolean;
  /** Instances that run now. */
  instances: number;
  /** What is on the node; undefined: not known yet, and what was said before still holds. */
  runtimes?: readonly HostRuntime[] | undefined;
  /** Instances that vanished from the API and left disks here, with where they lie. */
  lostDisks?: readonly string[];
}

const MIB = 1024 ** 2;

/** A figure that moves all the time is told again only when it has moved by a hundredth of the pool, at least 64 MiB. */
function quiet(pool: HostPool, before: HostPool | undefined): HostPool {
  if (pool.usedBytes === undefined) return pool;
  const step = Math.max(64 * MIB, (pool.sizeBytes ?? 0) / 100);
  const said = before?.usedBytes;
  if (said !== undefined && before?.sizeBytes === pool.sizeBytes && Math.abs(pool.usedBytes - said) < step) {
    return { ...pool, usedBytes: said };
  }
  return { ...pool, usedBytes: Math.round(pool.usedBytes / MIB) * MIB };
}

/** The status to write; equal to `before` as long as nothing happened that someone would want to know. */
export function hostStatus(seen: HostSeen, before: HostStatus | undefined, now: Date): HostStatus {
  const last = new Map(before?.pools?.map((pool) => [pool.name, pool]));
  const pools = seen.pools.map((pool) => quiet(pool, last.get(pool.name)));
  if (!seen.poolsSettled) pools.push(...[...last.values()].filter(({ name }) => !pools.some((pool) => pool.name === name)));
  pools.sort((a, b) => (a.name < b.name ? -1 : 1));
  const ready = pools.filter((pool) => pool.ready).map(({ name }) => name);
  const { facts, ovsDatapath = before?.ovsDatapath, instances } = seen;
  return {
    ...(facts ?? factsOf(before)),
    ...(ovsDatapath === undefined ? {} : { ovsDatapath }),
    // Server-side apply drops a list that became empty; said so here, it compares equal with what comes back.
    ...(pools.length === 0 ? {} : { pools }),
    poolNames: ready.join(","),
    instances,
    ...runtimesOf(seen, before),
    conditions: lostDisks(seen, setCondition(before?.conditions, readiness(seen, before), now), now),
  };
}

/** What a former agent found out: the node is still the same one while this agent looks again. */
function factsOf(before: HostStatus | undefined): Partial<HostStatus> {
  if (before === undefined) return {};
  const {
    pools: _pools,
    poolNames: _names,
    instances: _instances,
    runtimes: _runtimes,
    updated: _updated,
    conditions: _conditions,
    ovsDatapath: _datapath,
    ...facts
  } = before;
  return facts;
}

/** The versions, and how many of those that run have the current one. */
function runtimesOf({ runtimes: seen }: HostSeen, before: HostStatus | undefined): Pick<HostStatus, "runtimes" | "updated"> {
  const runtimes = seen?.toSorted((a, b) => (a.version < b.version ? -1 : 1)) ?? before?.runtimes ?? [];
  if (runtimes.length === 0) return {};
  const sum = (some: readonly HostRuntime[]): number => some.reduce((all, { instances }) => all + instances, 0);
  return { runtimes, updated: `${sum(runtimes.filter(({ current }) => current))}/${sum(runtimes)}` };
}

function readiness({ facts, trouble }: HostSeen, before: HostStatus | undefined) {
  const type = "Ready";
  if (trouble) return { type, status: "False" as const, ...trouble };
  const accelerator = facts?.accelerator ?? before?.accelerator;
  const said = before?.conditions?.find((condition) => condition.type === type);
  if (!facts && said) return { type, status: said.status, reason: said.reason, message: said.message };
  if (!accelerator)
    return { type, status: "False" as const, reason: "Probing", message: "the agent is finding out what the node can do" };
  return { type, status: "True" as const, reason: "Ready", message: `instances run here with ${accelerator}` };
}

/** Said once there is something to say, and then until it is mended. */
function lostDisks({ lostDisks: lost }: HostSeen, conditions: Condition[], now: Date): Condition[] {
  const type = "LostDisks";
  if (lost === undefined) return conditions;
  if (lost.length > 0) {
    const message = `disks are left of instances that are no longer in the API, and are kept: ${lost.slice(0, 10).join("; ")}; delete these directories when nobody wants them`;
    return setCondition(conditions, { type, status: "True", reason: "InstancesVanished", message }, now);
  }
  if (!conditions.some((condition) => condition.type === type)) return conditions;
  return setCondition(
    conditions,
    { type, status: "False", reason: "Mended", message: "no disks without an instance are left" },
    now,
  );
}

/** Whether the two differ only in figures that nobody waits for. */
export function onlyFigures(a: HostStatus, b: HostStatus): boolean {
  return isDeepStrictEqual(withoutFigures(a), withoutFigures(b));
}

const withoutFigures = (status: HostStatus): HostStatus => ({
  ...status,
  instances: 0,
  runtimes: status.runtimes?.map((runtime) => ({ ...runtime, instances: 0 })),
  updated: "",
  pools: status.pools?.map((pool) => ({ ...pool, usedBytes: 0 })),
});
