/** What machine a guest gets at a start. Pure. */
import { UserError } from "../errors.ts";
import type { HostFacts } from "../host/index.ts";
import type { InstanceNote } from "./driver.ts";

export interface Machine {
  machineType: string;
  cpuModel: string;
  accelerator: "KVM" | "TCG";
  runtimeVersion: string;
}

/** What is known of the machine that a guest had on another node. */
export type EarlierMachine = { machineType?: string | undefined } | undefined;

/**
 * The first start takes the newest machine type and the node's CPU model. Later ones keep both, for a guest takes another
 * machine for other hardware; they take the present runtime as long as that knows the machine type, so that a stop and a
 * start is all that an update of QEMU needs, and the one they ran with otherwise. A guest that comes from another node keeps the
 * machine type, if this node's QEMU knows it, and takes this node's CPU.
 * Throws UserError when there is no machine type to choose.
 */
export function chooseMachine(facts: HostFacts, run: InstanceNote["run"], earlier?: EarlierMachine): Machine {
  const { accelerator, runtimeVersion } = facts;
  if (run !== undefined) {
    const kept = { machineType: run.machineType, cpuModel: run.cpuModel, accelerator };
    return { ...kept, runtimeVersion: facts.machineTypes.includes(run.machineType) ? runtimeVersion : run.runtimeVersion };
  }
  const known = facts.machineTypes.find((type) => type === earlier?.machineType);
  const machineType = known ?? newestMachine(facts.machineTypes);
  if (machineType === undefined) {
    throw new UserError(
      "NoMachineType",
      `QEMU ${facts.qemuVersion} of this node knows no machine type pc-q35-*; look at the Host object of the node`,
    );
  }
  return { machineType, cpuModel: facts.cpuModel, accelerator, runtimeVersion };
}

/** The newest q35, by its numbers: pc-q35-10.0 is newer than pc-q35-9.2. */
export function newestMachine(types: readonly string[]): string | undefined {
  const versions = types.flatMap((name) => {
    const match = /^pc-q35-(\d+)\.(\d+)$/.exec(name);
    return match === null ? [] : [{ name, major: Number(match[1]), minor: Number(match[2]) }];
  });
  return versions.sort((a, b) => b.major - a.major || b.minor - a.minor)[0]?.name;
}
