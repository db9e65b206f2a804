/** Figures of pools: default size, headroom, and bytes as a person reads them. */
import { formatBytes } from "../../crds/quantity.ts";

export const GIB = 1024 ** 3;
const MIB = 1024 ** 2;

/** Size of a new loop pool when none is given: a fifth of the file system it lies on, whole GiB, 5 to 30. */
export function defaultPoolSize(fileSystemBytes: number): number {
  const fifth = Math.floor(fileSystemBytes / 5 / GIB);
  return Math.min(30, Math.max(5, fifth)) * GIB;
}

/**
 * Bytes of a pool that are not given to new disks and images: a full copy-on-write file system cannot even delete. A fiftieth,
 * at least 64 MiB (room for metadata of a small pool) and at most 1 GiB.
 */
export function poolHeadroom(sizeBytes: number): number {
  return Math.min(GIB, Math.max(64 * MIB, Math.ceil(sizeBytes / 50)));
}

/** Bytes that a new or growing pool file leaves free for the node: a twentieth of the file system, at most 1 GiB. */
export function nodeReserve(fileSystemBytes: number): number {
  return Math.min(GIB, Math.ceil(fileSystemBytes / 20));
}

/** A file's size that a block device of 4 KiB sectors can have. */
export const wholeSectors = (bytes: number): number => Math.ceil(bytes / 4096) * 4096;

/** Bytes for a person: exact where a unit divides them (8Gi, 1536Mi), else rounded down (7.9Gi). */
export function formatSize(bytes: number): string {
  for (const [unit, name] of [
    [GIB * 1024, "Ti"],
    [GIB, "Gi"],
    [MIB, "Mi"],
  ] as const) {
    if (bytes >= unit && bytes % unit === 0) return `${bytes / unit}${name}`;
  }
  return formatBytes(bytes);
}
