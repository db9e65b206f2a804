/** What of a machine follows from its Instance alone. Pure. */
import type { Instance } from "../../crds/instance.ts";
import { tapName } from "../../crds/names.ts";
import { UserError } from "../errors.ts";
import type { MachineNic } from "./driver.ts";

/** In the order of the spec, as the guest sees them. Throws UserError while one has no address. */
export function machineNics({ spec, status, metadata }: Instance): MachineNic[] {
  return (spec.nics ?? []).map(({ name }) => {
    const nic = status?.nics?.find((one) => one.name === name);
    if (nic === undefined) throw new UserError("AddressMissing", `NIC ${name} of ${metadata.name} has no address yet`);
    return { id: name, tap: tapName(metadata.uid, name), mac: nic.mac, mtu: nic.mtu };
  });
}
