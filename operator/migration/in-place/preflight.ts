/** What must hold before a guest's QEMU is replaced. What can pass is waited for, what cannot ends the update; either says what to do. */
import type { Host } from "../../../crds/host.ts";
import type { GuestStatus, Instance } from "../../../crds/instance.ts";
import type { Migration, RuntimeChange } from "../../../crds/migration.ts";
import type { NodeSeen, Problem } from "../../instance/facts.ts";
import { fail, RECOVER_MS, wait, type Refusal } from "../check.ts";
import { FIND_INSTANCE_MS, notRunning, runningGuest } from "../preflight.ts";
import { currentRuntime, runtimeText, updateProblem } from "./runtimes.ts";

export interface UpdateFacts {
  migration: Migration;
  instance: Instance | undefined;
  /** Its node. */
  source: NodeSeen;
  host: Host | undefined;
}

export type UpdateCheck =
  | { state: "ok"; change: RuntimeChange }
  /** It runs in that runtime already: there is nothing to do. */
  | ({ state: "current" } & Problem)
  | Refusal;

/** Whether the QEMU under this instance can be replaced now, and by which. Pure. */
export function checkUpdate({ migration, instance, source, host }: UpdateFacts): UpdateCheck {
  const { instance: name } = migration.spec;
  if (instance === undefined)
    return wait(
      "InstanceNotFound",
      `there is no Instance ${name} in namespace ${migration.metadata.namespace ?? ""}`,
      FIND_INSTANCE_MS,
    );
  if (instance.metadata.deletionTimestamp !== undefined) return fail("InstanceDeleted", `instance ${name} is being deleted`);
  if (instance.spec.power === "Stopped")
    return fail(
      "InstanceStopped",
      `instance ${name} is stopped, and has no QEMU to be replaced; it starts in its node's current runtime (spec.power: Running)`,
    );
  const guest = runningGuest(instance);
  if (guest === undefined) return notRunning(instance);
  const node = instance.status?.nodeName ?? "";
  if (source.state === "Gone") return fail("NodeGone", `node ${node} is no longer in the cluster, and the guest with it`);
  if (source.state !== "Answering") return wait(source.reason, `the guest cannot be updated now: ${source.message}`, RECOVER_MS);
  return checkRuntimes(migration, guest, node, host);
}

function checkRuntimes({ spec }: Migration, guest: GuestStatus, node: string, host: Host | undefined): UpdateCheck {
  const runtimes = host?.status?.runtimes ?? [];
  if (runtimes.length === 0)
    return wait(
      "RuntimesUnknown",
      `the agent of node ${node} has not said which runtimes lie there; look at its pod`,
      RECOVER_MS,
    );
  if (guest.runtimeVersion === undefined)
    return wait("RuntimeUnknown", `the agent of node ${node} has not said which runtime the guest runs in`, RECOVER_MS);
  const wanted = spec.runtime ?? currentRuntime(host?.status)?.version;
  const to = runtimes.find(({ version }) => version === wanted);
  if (to === undefined)
    return fail(
      "RuntimeNotFound",
      `runtime: node ${node} has no runtime ${wanted ?? ""}; it has ${runtimes.map(({ version }) => version).join(", ")}`,
    );
  if (guest.runtimeVersion === to.version)
    return {
      state: "current",
      reason: "AlreadyCurrent",
      message: `the guest runs in ${runtimeText(to.version, guest.qemuVersion ?? to.qemuVersion)} of node ${node} already`,
    };
  const problem = updateProblem(guest, to);
  if (problem !== undefined) return fail(problem.reason, `instance ${spec.instance} stays as it is: ${problem.message}`);
  return {
    state: "ok",
    change: {
      from: { version: guest.runtimeVersion, ...(guest.qemuVersion === undefined ? {} : { qemu: guest.qemuVersion }) },
      to: { version: to.version, ...(to.qemuVersion === undefined ? {} : { qemu: to.qemuVersion }) },
    },
  };
}
