/** The disks of an instance, as operator and agents must both see them. */
import { parseBytes } from "./quantity.ts";
import type { Instance } from "./instance.ts";

/** Name of the disk that the instance boots from. */
export const ROOT_DISK = "root";

export interface InstanceDisk {
  name: string;
  /** The pool that it lies in: the spec's, unless a move has put it elsewhere. */
  pool: string;
  sizeBytes: number;
}

/** All disks of an instance, the root disk first, in the order that the guest sees them. Pure. */
export function disksOf({ spec, status }: Pick<Instance, "spec" | "status">): InstanceDisk[] {
  const { pool, size } = spec.rootDisk;
  const moved = status?.disks?.find(({ name }) => name === ROOT_DISK)?.pool;
  const place = moved ?? pool;
  return place === undefined ? [] : [{ name: ROOT_DISK, pool: place, sizeBytes: parseBytes(size) }];
}
