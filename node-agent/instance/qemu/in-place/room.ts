/** Whether a claim has room for a second QEMU beside the one that runs. Pure. */
import { UserError } from "../../../errors.ts";

const MIB = 1024 ** 2;

/**
 * What a second QEMU is charged until the first is gone, beside the guest's RAM, which both share. Measured under TCG with QEMU 10.0.13 and
 * 10.0.2 (1 vCPU, 1 disk, 1 NIC): 9 MiB while it waits, 19 MiB with its machine made, 29 MiB at its peak; 512 MiB and 2 GiB guests alike.
 * The second half is left for more devices and for the translation buffer, which it begins to fill before the other one is gone.
 */
export const SECOND_QEMU_BYTES = 64 * MIB;

export interface ClaimMemory {
  /** Undefined: no limit. */
  limitBytes: number | undefined;
  /** Without what the kernel would give back at once (pages of files). */
  usedBytes: number;
}

/** Throws UserError with figures and the way out. */
export function requireRoom({ limitBytes, usedBytes }: ClaimMemory): void {
  if (limitBytes === undefined || limitBytes - usedBytes >= SECOND_QEMU_BYTES) return;
  const mib = (bytes: number): string => `${Math.max(0, Math.round(bytes / MIB))} MiB`;
  throw new UserError(
    "NoRoomInClaim",
    `a second QEMU needs ${mib(SECOND_QEMU_BYTES)} in the claim for a moment, and of its ${mib(limitBytes)} only ` +
      `${mib(limitBytes - usedBytes)} are free; move the instance to another node, or restart it`,
  );
}
