/** Whether a claim has room for a second QEMU beside the one that runs. Pure. */
import { MIB } from "../../../../crds/quantity.ts";
import { SECOND_QEMU_BYTES } from "../../../../crds/second-qemu.ts";
import { UserError } from "../../../errors.ts";

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
