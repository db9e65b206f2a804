/** Who accounts for the room of an instance's disk: its first claim or the one it moved to, and from then on the node itself. */
import type { InstanceStatus } from "./instance.ts";

/** Whether the claim of this serial asks for the pool's GiB. Later ones go back to the node where the disk already lies. */
export const asksForDisk = (serial: number): boolean => serial === 1;

/**
 * Whether a bound claim accounts for the instance's disk. Where none does (the instance is stopped, or was started again), its node has
 * to take the disk's GiB off what it advertises.
 */
export const isDiskClaimed = (status: Pick<InstanceStatus, "claim"> | undefined): boolean =>
  status?.claim?.uid !== undefined && (asksForDisk(status.claim.serial) || status.claim.countsDisks === true);
