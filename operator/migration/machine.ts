/** Whether a node can take a running guest over: the same accelerator, machine type and CPU, and a QEMU that is new enough. */
import type { GuestStatus } from "../../crds/instance.ts";
import type { HostStatus } from "../../crds/host.ts";
import type { Problem } from "../instance/facts.ts";
import { qemuProblem } from "../instance/migratable.ts";

/**
 * The CPU models that agents give, with their level of x86-64: a CPU has all of the levels below its own. The two of level 3 are of
 * different makers, and neither has all that the other has.
 */
const CPU_LEVELS: Record<string, number> = {
  "Haswell-v4": 3,
  "EPYC-v1": 3,
  "Westmere-v1": 2.1,
  "Nehalem-v1": 2,
  "qemu64-v1": 1,
};

/** Whether a node whose best CPU model is `best` has all that `wanted` asks for. Pure. */
export function hasCpu(best: string, wanted: string): boolean {
  const [have, need] = [CPU_LEVELS[best], CPU_LEVELS[wanted]];
  return best === wanted || (have !== undefined && need !== undefined && need < have);
}

/** Why this node cannot run this guest on; undefined when it can. What a node does not say is not held against it. Pure. */
export function machineProblem(guest: GuestStatus, node: string, host: HostStatus): Problem | undefined {
  const { accelerator, machineType, cpuModel } = guest;
  if (accelerator !== undefined && host.accelerator !== undefined && accelerator !== host.accelerator)
    return {
      reason: "AcceleratorDiffers",
      message: `node ${node} runs guests by ${host.accelerator}, and this one runs by ${accelerator}; move it to a node with ${accelerator}`,
    };
  if (machineType !== undefined && host.machineTypes !== undefined && !host.machineTypes.includes(machineType))
    return {
      reason: "MachineTypeUnknown",
      message: `QEMU ${host.qemuVersion ?? ""} of node ${node} does not know the guest's machine type ${machineType}; move it to another node, or bring ${node} to the same version of Drover`,
    };
  if (cpuModel !== undefined && host.cpuModel !== undefined && !hasCpu(host.cpuModel, cpuModel))
    return {
      reason: "CPUModelUnknown",
      message: `node ${node} offers the CPU ${host.cpuModel}, which lacks what the guest's ${cpuModel} has; move it to another node`,
    };
  return qemuProblem(host.accelerator, host.qemuVersion, `of node ${node}`);
}
