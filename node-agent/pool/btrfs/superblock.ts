/** Reads who a btrfs file system is from its file, without mounting it. */
import { constants } from "node:fs";
import { open } from "node:fs/promises";

export interface Superblock {
  fsid: string;
  label: string;
  totalBytes: number;
}

// On-disk format of btrfs: the first superblock lies at 64 KiB; offsets within it.
const OFFSET = 0x10000;
const LENGTH = 4096;
const FSID = 0x20;
const MAGIC = 0x40;
const TOTAL_BYTES = 0x70;
const LABEL = 0x12b;
const LABEL_LENGTH = 256;

/** The superblock in a buffer of its 4096 bytes; undefined when they are none. */
export function parseSuperblock(block: Buffer): Superblock | undefined {
  if (block.length < LENGTH || block.toString("latin1", MAGIC, MAGIC + 8) !== "_BHRfS_M") return undefined;
  const label = block.toString("utf8", LABEL, LABEL + LABEL_LENGTH);
  return {
    fsid: block.toString("hex", FSID, FSID + 16),
    label: label.slice(0, Math.max(0, label.indexOf("\0"))),
    totalBytes: Number(block.readBigUInt64LE(TOTAL_BYTES)),
  };
}

/** The superblock of a file; undefined when the file holds no btrfs. */
export async function readSuperblock(file: string): Promise<Superblock | undefined> {
  const handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(LENGTH), 0, LENGTH, OFFSET);
    return parseSuperblock(buffer.subarray(0, bytesRead));
  } finally {
    await handle.close();
  }
}
