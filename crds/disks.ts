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
  const moved = new Map((status?.disks ?? []).map(({ name, pool }) => [name, pool]));
  const all = [{ name: ROOT_DISK, ...spec.rootDisk }, ...(spec.disks ?? [])];
  return all.map(({ name, pool, size }) => ({ name, pool: moved.get(name) ?? pool, sizeBytes: parseBytes(size) }));
}

/** The pools that its disks lie in, or will; each once. Pure. */
export const poolsOf = (instance: Pick<Instance, "spec" | "status">): string[] => [
  ...new Set(disksOf(instance).map(({ pool }) => pool)),
];

/** How a user finds a disk in the spec: `rootDisk`, `disks[data]`. */
export const fieldOfDisk = (name: string): string => (name === ROOT_DISK ? "rootDisk" : `disks[${name}]`);
