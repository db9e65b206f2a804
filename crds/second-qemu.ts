/** What a second QEMU takes in a claim for as long as it takes a guest over from the first. */
import { MIB } from "./quantity.ts";

/**
 * What a second QEMU is charged until the first is gone, beside the guest's RAM, which both share. Measured under TCG with QEMU 10.0.13 and
 * 10.0.2 (1 vCPU, 1 disk, 1 NIC): 9 MiB while it waits, 19 MiB with its machine made, 29 MiB at its peak; 512 MiB and 2 GiB guests alike.
 * The second half is left for more devices and for the translation buffer, which it begins to fill before the other one is gone.
 */
export const SECOND_QEMU_BYTES = 64 * MIB;
