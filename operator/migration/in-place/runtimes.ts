/** Which runtime a guest goes to, and what stands in its way. Pure. */
import type { Host, HostRuntime } from "../../../crds/host.ts";
import type { GuestStatus } from "../../../crds/instance.ts";
import type { RuntimeChange } from "../../../crds/migration.ts";
import type { Problem } from "../../instance/facts.ts";

/** Which instances of a node get who start now; an agent that says nothing of its runtimes still says that. */
export function currentRuntime(
  status: Host["status"],
): Pick<HostRuntime, "version" | "qemuVersion" | "machineTypes"> | undefined {
  const current = status?.runtimes?.find((one) => one.current);
  if (current !== undefined) return current;
  const { runtimeVersion: version, qemuVersion, machineTypes } = status ?? {};
  return version === undefined ? undefined : { version, qemuVersion, machineTypes };
}

/** For people: `runtime r2 (QEMU 10.0.13)`. */
export const runtimeText = (version: string, qemu: string | undefined): string =>
  `runtime ${version}${qemu === undefined ? "" : ` (QEMU ${qemu})`}`;

/** For people: `from runtime r1 (QEMU 10.0.2) to runtime r2 (QEMU 10.0.13)`. */
export const changeText = ({ from, to }: RuntimeChange): string =>
  `from ${runtimeText(from.version, from.qemu)} to ${runtimeText(to.version, to.qemu)}`;

/** What helps a guest whose QEMU cannot be replaced in place. */
export const WAY_OUT =
  "move it to another node (a Migration with mode: Live), or restart it (a new spec.restartedAt): it then runs in the current runtime";

/** The first that can hand a guest's memory to another process as it lies there (migration mode cpr-transfer). */
const LEAST_QEMU = 10;

const isTooOld = (qemu: string | undefined): boolean => qemu !== undefined && Number.parseInt(qemu, 10) < LEAST_QEMU;

/** Why the QEMU of this guest cannot be replaced by that of this runtime; undefined when it can, as far as is known. */
export function updateProblem(
  guest: GuestStatus,
  runtime: Pick<HostRuntime, "version" | "qemuVersion" | "machineTypes">,
): Problem | undefined {
  const { machineType, updateBlockers = [] } = guest;
  if (updateBlockers.length > 0)
    return { reason: "UpdateBlocked", message: `its QEMU cannot be replaced in place: ${updateBlockers.join("; ")}; ${WAY_OUT}` };
  const old = [guest.qemuVersion, runtime.qemuVersion].find(isTooOld);
  if (old !== undefined)
    return {
      reason: "QEMUTooOld",
      message: `QEMU ${old} cannot hand a running guest over in place, it takes QEMU ${LEAST_QEMU} on both sides; ${WAY_OUT}`,
    };
  if (machineType !== undefined && runtime.machineTypes !== undefined && !runtime.machineTypes.includes(machineType))
    return {
      reason: "MachineTypeUnknown",
      message: `${runtimeText(runtime.version, runtime.qemuVersion)} does not know its machine type ${machineType}; ${WAY_OUT}`,
    };
  return undefined;
}
