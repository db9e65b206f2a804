/** What must hold before a guest is moved. What can pass is waited for, what cannot ends the move at once; either says what to change. */
import type { Host } from "../../crds/host.ts";
import { disksOf } from "../../crds/disks.ts";
import type { GuestStatus, Instance } from "../../crds/instance.ts";
import type { Migration, MigrationDisk } from "../../crds/migration.ts";
import { ROOT_DISK } from "../../crds/disks.ts";
import { findCondition, type Node } from "../../kube/index.ts";
import type { NodeSeen } from "../instance/facts.ts";
import { migrationProblem } from "../instance/migratable.ts";
import { fail, OK, RECOVER_MS, wait, type Check, type Refusal } from "./check.ts";
import { checkStopped, isCold } from "./cold.ts";
import { changesPool, staysOnNode } from "./local.ts";
import { machineProblem } from "./machine.ts";

/** A Migration and its Instance may stand in one file. */
export const FIND_INSTANCE_MS = 60_000;

/** A node, as far as it matters to whether a guest can go there. */
export interface NodeFacts {
  name: string;
  node: Node | undefined;
  seen: NodeSeen;
  host: Host | undefined;
}

/** The instance's guest, as long as it runs in its present claim. */
export function runningGuest({ status }: Instance): GuestStatus | undefined {
  const guest = status?.guest;
  return guest?.state === "Running" && guest.claimUid !== undefined && guest.claimUid === status?.claim?.uid ? guest : undefined;
}

/**
 * The disks of the instance and where each would go. What stays in a pool that both nodes share is not copied; nor is, when the
 * instance stays on its node (`stays`), what stays in its pool. Pure.
 */
export function diskPlan(
  migration: Pick<Migration, "spec">,
  instance: Instance,
  isShared: (pool: string) => boolean,
  stays = false,
): MigrationDisk[] {
  const other = migration.spec.target?.pool;
  return disksOf(instance).map(({ name, pool, sizeBytes }) => {
    const targetPool = name === ROOT_DISK ? (other ?? pool) : pool;
    return { name, sourcePool: pool, targetPool, sizeBytes, copy: targetPool !== pool || (!stays && !isShared(pool)) };
  });
}

/** The pools that its disks would lie in. Pure. */
const targetPools = (migration: Pick<Migration, "spec">, instance: Instance): string[] => [
  ...new Set(diskPlan(migration, instance, () => false).map(({ targetPool }) => targetPool)),
];

export interface InstanceFacts {
  migration: Migration;
  instance: Instance | undefined;
  /** The node that it is on. */
  source: NodeSeen;
  /** Whether a StoragePool of this name exists. */
  hasPool: (name: string) => boolean;
  /** The nodes that say they have a pool of this name. */
  nodesWith: (pool: string) => readonly string[];
}

/** Whether the instance can be moved now, wherever it goes. Pure. */
export function checkInstance({ migration, instance, source, hasPool, nodesWith }: InstanceFacts): Check {
  const { instance: name, target } = migration.spec;
  if (instance === undefined)
    return wait(
      "InstanceNotFound",
      `there is no Instance ${name} in namespace ${migration.metadata.namespace ?? ""}`,
      FIND_INSTANCE_MS,
    );
  if (instance.metadata.deletionTimestamp !== undefined) return fail("InstanceDeleted", `instance ${name} is being deleted`);
  if (!isCold(migration) && instance.spec.power === "Stopped")
    return fail(
      "InstanceStopped",
      `instance ${name} is stopped; use mode: Cold, or start it (spec.power: Running) and make the Migration again`,
    );
  if (target?.pool !== undefined && !hasPool(target.pool))
    return fail("PoolNotFound", `target.pool: there is no StoragePool ${target.pool}; make it, or name another one`);
  if (isCold(migration)) return checkStopped(instance, source);
  const guest = runningGuest(instance);
  if (guest === undefined) return notRunning(instance);
  if (source.state === "Gone")
    return fail("NodeGone", `node ${instance.status?.nodeName ?? ""} is no longer in the cluster, and the guest with it`);
  if (source.state !== "Answering") return wait(source.reason, `the guest cannot be moved now: ${source.message}`, RECOVER_MS);
  // A guest that stays in its QEMU need not be one that could leave it.
  const problem = staysOnNode(migration, instance, nodesWith) ? undefined : migrationProblem(guest);
  return problem === undefined ? OK : fail(problem.reason, `instance ${name} cannot be moved: ${problem.message}`);
}

/** Waits until it runs, and says why it does not. */
export function notRunning({ metadata, status }: Instance): Refusal {
  const ready = findCondition(status?.conditions, "Ready");
  const why = ready?.message === undefined || ready.message === "" ? "" : `: ${ready.message}`;
  const phase = status?.phase ?? "Pending";
  return wait("InstanceNotRunning", `waits until instance ${metadata.name} runs; it is ${phase}${why}`, RECOVER_MS);
}

/** Whether this node can take the instance. Pure. */
export function checkTarget(migration: Migration, instance: Instance, { name, node, seen, host }: NodeFacts): Check {
  const stays = instance.status?.nodeName === name;
  if (stays && !changesPool(migration, instance)) return staysWhereItIs(migration, instance, name);
  if (node === undefined) return fail("NodeNotFound", `target.node: there is no Node ${name}; see kubectl get nodes`);
  // Somebody has said that it is dead: it comes back on another day, if at all.
  if (seen.state === "Fenced") return fail(seen.reason, `${seen.message}; name another node, or none`);
  if (seen.state !== "Answering")
    return wait("TargetNotReady", seen.state === "Gone" ? `node ${name} is gone` : seen.message, RECOVER_MS);
  if (node.spec.unschedulable === true)
    return wait("TargetCordoned", `node ${name} is cordoned; kubectl uncordon ${name}, or name another node`, RECOVER_MS);
  if (host?.status === undefined)
    return wait(
      "TargetNotReady",
      `node ${name} has no Host object: Drover's agent has not run there yet; look at its pod`,
      RECOVER_MS,
    );
  const ready = findCondition(host.status.conditions, "Ready");
  if (ready?.status !== "True")
    return wait(
      "TargetNotReady",
      `node ${name} cannot take instances: ${ready?.message ?? "its agent has not said that it is ready"}`,
      RECOVER_MS,
    );
  const pools = checkPools(migration, instance, name, host);
  // A guest that boots there takes the machine that there is.
  return pools ?? (isCold(migration) || stays ? OK : checkMachine(instance, name, host));
}

function staysWhereItIs({ spec }: Migration, { metadata: { name } }: Instance, node: string): Check {
  const pool = spec.target?.pool;
  const where =
    pool === undefined ? `runs on node ${node} already` : `is on node ${node} already, with its root disk in pool ${pool}`;
  return fail(
    "TargetIsPresentNode",
    `instance ${name} ${where}; name another node, ${pool === undefined ? "or none" : "or another pool"}`,
  );
}

function checkPools(migration: Migration, instance: Instance, node: string, host: Host): Check | undefined {
  for (const targetPool of targetPools(migration, instance)) {
    const pool = host.status?.pools?.find(({ name }) => name === targetPool);
    if (pool === undefined)
      return fail("PoolNotOnTarget", `node ${node} has no pool ${targetPool}; name another node, or another pool by target.pool`);
    if (!pool.ready)
      return wait(
        "PoolNotReady",
        `pool ${targetPool} of node ${node} is not ready: ${pool.message ?? "its agent says no more"}`,
        RECOVER_MS,
      );
  }
  return undefined;
}

function checkMachine(instance: Instance, node: string, { status }: Host): Check {
  const guest = instance.status?.guest;
  const problem = guest === undefined || status === undefined ? undefined : machineProblem(guest, node, status);
  return problem === undefined ? OK : fail(problem.reason, problem.message);
}

/** Nodes named in a claim at most. */
const AVOIDED_MAX = 64;

/** Nodes that cannot take this instance, for kube-scheduler: it knows nothing of CPUs and machine types. Pure. */
export function unsuitableNodes(migration: Pick<Migration, "spec">, instance: Instance, hosts: readonly Host[]): string[] {
  const guest = isCold(migration) ? undefined : instance.status?.guest;
  return hosts
    .filter(({ metadata, status }) => {
      const ready = findCondition(status?.conditions, "Ready")?.status;
      if (ready === "False") return true;
      return guest !== undefined && status !== undefined && machineProblem(guest, metadata.name, status) !== undefined;
    })
    .map(({ metadata }) => metadata.name)
    .sort()
    .slice(0, AVOIDED_MAX);
}
