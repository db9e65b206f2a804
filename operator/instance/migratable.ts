/** Whether a guest can be moved while it runs, as far as it itself is concerned. */
import type { GuestStatus } from "../../crds/instance.ts";
import type { Problem } from "./facts.ts";

/** QEMU before 9 loses pages that an emulated guest writes while its memory is copied. */
const LEAST_QEMU_TCG = 9;

const major = (version: string): number => Number.parseInt(version, 10);

/** Why this QEMU cannot move guests; undefined when it can, or its version is not known. Pure. */
export function qemuProblem(
  accelerator: string | undefined,
  qemuVersion: string | undefined,
  where: string,
): Problem | undefined {
  if (accelerator !== "TCG" || qemuVersion === undefined || !(major(qemuVersion) < LEAST_QEMU_TCG)) return undefined;
  return {
    reason: "QEMUTooOld",
    message: `QEMU ${qemuVersion} ${where} loses memory when it moves an emulated guest (TCG); it takes QEMU ${LEAST_QEMU_TCG} or newer`,
  };
}

/** What of a running guest keeps it from being moved, and what to change; undefined when nothing does. Pure. */
export function migrationProblem(guest: GuestStatus): Problem | undefined {
  const { machineType, cpuModel, accelerator, qemuVersion, blockers = [] } = guest;
  if (machineType === undefined || cpuModel === undefined || accelerator === undefined)
    return {
      reason: "MachineUnknown",
      message: "its agent has not said what machine and CPU its guest has; they are known within seconds of its start",
    };
  const old = qemuProblem(accelerator, qemuVersion, "that it runs in");
  if (old !== undefined)
    return { ...old, message: `${old.message}: stop and start it (spec.restartedAt) once its node has that` };
  if (blockers.length === 0) return undefined;
  const why = blockers.join("; ");
  return {
    reason: "DeviceCannotMove",
    message: `QEMU cannot move it while it runs: ${why}; stop it (spec.power: Stopped) and move it with mode: Cold`,
  };
}
