/** The same machine on another node. Pure. */
import type { Instance } from "../../../crds/instance.ts";
import { parseBytes } from "../../../crds/quantity.ts";
import { UserError } from "../../errors.ts";
import type { HostFacts } from "../../host/index.ts";
import type { MachineDisk, MachinePlan } from "../../instance/driver.ts";
import { machineNics } from "../../instance/machine.ts";
import type { GuestIdentity } from "../../types.ts";

/** Throws UserError with what this node lacks. */
export function sameMachine(
  instance: Instance,
  facts: HostFacts,
  here: { claimUid: string; identity: GuestIdentity; disks: MachineDisk[] },
): MachinePlan {
  const { metadata, spec, status } = instance;
  const { machineType, cpuModel, accelerator } = status?.guest ?? {};
  if (machineType === undefined || cpuModel === undefined || accelerator === undefined) {
    throw new UserError("GuestUnknown", "its node's agent has not said yet what machine the guest runs on");
  }
  if (accelerator !== facts.accelerator) {
    throw new UserError(
      "AcceleratorDiffers",
      `the guest runs by ${accelerator}, and this node runs guests by ${facts.accelerator}`,
    );
  }
  if (!facts.machineTypes.includes(machineType)) {
    const message = `QEMU ${facts.qemuVersion} of this node does not know the guest's machine type ${machineType}`;
    throw new UserError("MachineTypeUnknown", message);
  }
  return {
    instanceUid: metadata.uid,
    namespace: metadata.namespace ?? "",
    name: metadata.name,
    ...here,
    cpus: spec.cpu,
    memoryBytes: parseBytes(spec.memory),
    nics: machineNics(instance),
    machineType,
    cpuModel,
    accelerator,
    runtimeVersion: facts.runtimeVersion,
  };
}
