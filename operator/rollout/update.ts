/** The Migrations that a roll-out makes, and what they say of an instance. Pure. */
import { createHash } from "node:crypto";
import type { HostRuntime } from "../../crds/host.ts";
import type { Instance } from "../../crds/instance.ts";
import type { Migration } from "../../crds/migration.ts";
import { API_VERSION, ROLLOUT_LABEL } from "../../crds/names.ts";
import type { Rollout } from "../../crds/rollout.ts";
import { findCondition, keyOf, keyText } from "../../kube/index.ts";
import { endOf, hasEnded } from "../migration/attempt.ts";
import { CANNOT } from "../migration/in-place/in-place.ts";
import { updateProblem } from "../migration/in-place/runtimes.ts";
import { runningGuest } from "../migration/preflight.ts";

/**
 * The same for the same process of the same guest in the same round (`since`), so that a repeat makes no second one, and that one which
 * was cancelled or failed is not made again before somebody says so.
 */
export function updateName(rollout: Rollout, since: string, instance: Instance): string {
  const { name, uid } = instance.metadata;
  const { claimUid, pid, startedAt, runtimeVersion } = instance.status?.guest ?? {};
  const which = [rollout.metadata.uid, since, uid, claimUid, pid, startedAt, runtimeVersion].join("/");
  return `update-${name}-${createHash("sha256").update(which).digest("hex").slice(0, 8)}`;
}

/** The Migration that replaces the QEMU under this instance. */
export function updateMigration(rollout: Rollout, since: string, instance: Instance, version: string) {
  const { name, namespace, uid } = instance.metadata;
  return {
    apiVersion: API_VERSION,
    kind: "Migration",
    metadata: {
      name: updateName(rollout, since, instance),
      namespace,
      labels: { [ROLLOUT_LABEL]: rollout.metadata.name, "app.kubernetes.io/managed-by": "drover" },
      ownerReferences: [{ apiVersion: instance.apiVersion, kind: instance.kind, name, uid }],
    },
    spec: { instance: name, mode: "InPlace" as const, runtime: version, priority: "Rebalance" as const },
  };
}

/** An update that failed though nothing was in its way: the new QEMU, or its node, may be at fault, and others wait for a person. */
export const isFault = ({ status }: Migration): boolean =>
  status?.phase === "Failed" && status.handover !== undefined && !CANNOT.has(status.reason ?? "");

export type Outdated =
  | { state: "ready" }
  /** Something else is done with it now; its end is an event. */
  | { state: "busy" }
  /** Its update cannot be, or was cancelled: it is left as it is. */
  | { state: "left"; why: string }
  | { state: "failed"; why: string };

const messageOf = ({ status }: Migration): string =>
  findCondition(status?.conditions, "Ready")?.message ?? status?.reason ?? "it says nothing";

/** What became of the update that this round has made for it, also of one that was deleted since. */
function outcome(name: string, instance: Instance, moves: readonly Migration[]): Outdated | undefined {
  const made = moves.find(({ metadata }) => metadata.name === name);
  if (made !== undefined) {
    const end = endOf(made);
    if (end === undefined) return { state: "busy" };
    if (end === "Failed") return { state: isFault(made) ? "failed" : "left", why: messageOf(made) };
    return end === "Cancelled" ? { state: "left", why: "its update was cancelled" } : { state: "busy" };
  }
  const { lastMigration, earlierMigrations = [] } = instance.status ?? {};
  const past = [lastMigration, ...earlierMigrations].find((one) => one?.name === name);
  if (past === undefined) return undefined;
  if (past.phase === "Failed")
    return { state: CANNOT.has(past.reason ?? "") ? "left" : "failed", why: past.reason ?? "its update failed" };
  return past.phase === "Cancelled" ? { state: "left", why: "its update was cancelled" } : { state: "busy" };
}

export interface OutdatedFacts {
  rollout: Rollout;
  since: string;
  instance: Instance;
  /** All Migrations of the instance. */
  moves: readonly Migration[];
  /** The runtime that it is to go to, as its node has it. */
  runtime: Pick<HostRuntime, "version" | "qemuVersion" | "machineTypes">;
}

/** What a roll-out may do with an instance that runs in another runtime. */
export function outdatedState({ rollout, since, instance, moves, runtime }: OutdatedFacts): Outdated {
  const guest = runningGuest(instance);
  if (guest?.runtimeVersion === undefined) return { state: "busy" };
  const problem = updateProblem(guest, runtime);
  if (problem !== undefined) return { state: "left", why: problem.message };
  const known = outcome(updateName(rollout, since, instance), instance, moves);
  if (known !== undefined) return known;
  const { metadata, spec, status } = instance;
  const goes = metadata.deletionTimestamp !== undefined || spec.power === "Stopped";
  const draining = findCondition(status?.conditions, "Draining")?.status === "True";
  return goes || draining || moves.some((one) => !hasEnded(one)) ? { state: "busy" } : { state: "ready" };
}

/** For people: `team-a/web`. */
export const nameOf = (object: Instance | Migration): string => keyText(keyOf(object));
