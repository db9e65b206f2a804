/** The machine of a guest that gets another QEMU, and whether that can be it. */
import { join } from "node:path";
import { disksOf } from "../../../crds/disks.ts";
import type { Instance } from "../../../crds/instance.ts";
import { parseBytes } from "../../../crds/quantity.ts";
import type { MachineDisk } from "../../instance/driver.ts";
import { machineNics } from "../../instance/machine.ts";
import type { UpdatePlan } from "../../instance/update.ts";
import type { Pools } from "../../pool/index.ts";
import type { GuestIdentity } from "../../types.ts";
import { GiveUp } from "../parts.ts";

/** What a runtime of this node can run. */
export interface RuntimeFacts {
  qemuVersion: string;
  machineTypes: readonly string[];
}

const lasting = (reason: string, message: string): GiveUp => new GiveUp({ reason, message, retryable: false });

/** Throws GiveUp, for good, with what the runtime lacks. Pure. */
export function requireRuntime(
  version: string | undefined,
  facts: RuntimeFacts | undefined,
  guest: { machineType: string | undefined },
): asserts version is string {
  if (version === undefined) throw lasting("RuntimeUnknown", "the migration does not say which runtime the guest is to run in");
  if (facts === undefined)
    throw lasting(
      "RuntimeMissing",
      `runtime ${version} is not on this node; its Host says which are, and spec.runtime may name one of them`,
    );
  if (Number(facts.qemuVersion.split(".")[0]) < 10)
    throw lasting("QEMUTooOld", `QEMU ${facts.qemuVersion} of runtime ${version} cannot take a guest over; 10.0 and newer can`);
  const { machineType } = guest;
  if (machineType !== undefined && !facts.machineTypes.includes(machineType))
    throw lasting(
      "MachineTypeUnknown",
      `QEMU ${facts.qemuVersion} of runtime ${version} does not know the guest's machine type ${machineType}; the guest keeps that for life`,
    );
}

/** Where the disks of an instance lie on this node. */
export async function disksHere(instance: Instance, pools: Pick<Pools, "place">): Promise<MachineDisk[]> {
  return Promise.all(
    disksOf(instance).map(async ({ name, pool }) => {
      const { volumes } = await pools.place(pool);
      return { id: name, pool, path: join(volumes, instance.metadata.uid, `${name}.raw`) };
    }),
  );
}

/** Pure. */
export function updatePlan(
  instance: Instance,
  here: { identity: GuestIdentity; disks: MachineDisk[]; runtimeVersion: string },
): UpdatePlan {
  const { metadata, spec } = instance;
  return {
    instanceUid: metadata.uid,
    namespace: metadata.namespace ?? "",
    name: metadata.name,
    cpus: spec.cpu,
    memoryBytes: parseBytes(spec.memory),
    nics: machineNics(instance),
    ...here,
  };
}
