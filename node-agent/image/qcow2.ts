/** A qcow2 file's header, read strictly before any program is let near the file. Pure. */

export interface Qcow2Header {
  version: 2 | 3;
  virtualSizeBytes: number;
  clusterBytes: number;
}

/** Says what is wrong, in words that follow "the image". */
export class Qcow2Refused extends Error {}

/** As much of a file's beginning as the parser needs: the largest cluster. */
export const QCOW2_HEADER_BYTES = 2 * 1024 ** 2;

const MAGIC = 0x514649fb;
const V2_LENGTH = 72;
const V3_LENGTH = 104;

// Incompatible features (bits) of version 3.
const DIRTY = 1n;
const CORRUPT = 2n;
const EXTERNAL_DATA = 4n;
const COMPRESSION_TYPE = 8n;
const EXTENDED_L2 = 16n;
const KNOWN = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2;

// Header extensions.
const END = 0;
const BACKING_FORMAT = 0xe2792aca;
const DATA_FILE = 0x44415441;
const ENCRYPTION = 0x0537be77;

export const isQcow2 = (start: Buffer): boolean => start.length >= 4 && start.readUInt32BE(0) === MAGIC;

/**
 * Reads a header and refuses what would make a reader open other files, ask for a key, or trust sizes that cannot be.
 * @param start the file's first bytes, QCOW2_HEADER_BYTES or the whole file
 * @throws Qcow2Refused
 */
export function parseQcow2(start: Buffer, fileBytes: number): Qcow2Header {
  if (!isQcow2(start)) throw new Qcow2Refused("is not qcow2");
  if (start.length < V2_LENGTH) throw new Qcow2Refused("ends within its header");
  const version = start.readUInt32BE(4);
  if (version !== 2 && version !== 3) throw new Qcow2Refused(`is qcow2 of version ${version}, which is not known`);
  if (start.readBigUInt64BE(8) !== 0n || start.readUInt32BE(16) !== 0) {
    throw new Qcow2Refused("needs another file as its backing file; flatten it (qemu-img convert)");
  }
  if (start.readUInt32BE(32) !== 0) throw new Qcow2Refused("is encrypted");
  const clusterBytes = clusterSize(start);
  const virtualSizeBytes = virtualSize(start);
  const headerLength = version === 3 ? checkFeatures(start, clusterBytes) : V2_LENGTH;
  checkExtensions(start, headerLength, clusterBytes);
  checkTables(start, { fileBytes, clusterBytes, virtualSizeBytes });
  return { version, virtualSizeBytes, clusterBytes };
}

function clusterSize(start: Buffer): number {
  const bits = start.readUInt32BE(20);
  if (bits < 9 || bits > 21) throw new Qcow2Refused(`has clusters of 2^${bits} bytes, which cannot be`);
  return 2 ** bits;
}

function virtualSize(start: Buffer): number {
  const size = start.readBigUInt64BE(24);
  // 2^53 bytes are 8 PiB: more than any pool, and all that a number counts exactly.
  if (size === 0n || size > BigInt(Number.MAX_SAFE_INTEGER))
    throw new Qcow2Refused(`is a disk of ${size} bytes, which cannot be`);
  return Number(size);
}

/** Version 3: what a reader must know to read it at all. Returns the header's length. */
function checkFeatures(start: Buffer, clusterBytes: number): number {
  if (start.length < V3_LENGTH) throw new Qcow2Refused("ends within its header");
  const features = start.readBigUInt64BE(72);
  if (features & EXTERNAL_DATA)
    throw new Qcow2Refused("keeps its data in another file; convert it into one file (qemu-img convert)");
  if (features & CORRUPT) throw new Qcow2Refused("is marked as corrupt; repair it (qemu-img check -r all)");
  if (features & DIRTY) throw new Qcow2Refused("was not closed cleanly; repair it (qemu-img check -r all)");
  if (features & ~KNOWN) throw new Qcow2Refused(`needs qcow2 features that are not known (0x${features.toString(16)})`);
  const length = start.readUInt32BE(100);
  if (length < V3_LENGTH || length > clusterBytes || length % 8 !== 0) {
    throw new Qcow2Refused(`has a header of ${length} bytes, which cannot be`);
  }
  if (features & COMPRESSION_TYPE) {
    const type = length > V3_LENGTH ? start.readUInt8(V3_LENGTH) : 0;
    if (type > 1) throw new Qcow2Refused(`is compressed in a way that is not known (${type})`);
  }
  return length;
}

function checkExtensions(start: Buffer, headerLength: number, clusterBytes: number): void {
  const end = Math.min(clusterBytes, start.length);
  let at = headerLength;
  while (at + 8 <= end) {
    const type = start.readUInt32BE(at);
    const length = start.readUInt32BE(at + 4);
    if (type === END) return;
    if (type === BACKING_FORMAT) throw new Qcow2Refused("names the format of a backing file; flatten it (qemu-img convert)");
    if (type === DATA_FILE)
      throw new Qcow2Refused("names another file for its data; convert it into one file (qemu-img convert)");
    if (type === ENCRYPTION) throw new Qcow2Refused("is encrypted");
    if (length > end - at - 8) throw new Qcow2Refused("has a header that runs out of its first cluster");
    at += 8 + Math.ceil(length / 8) * 8;
  }
}

/** The tables that a header points at must lie in the file and be large enough for the disk. */
function checkTables(start: Buffer, sizes: { fileBytes: number; clusterBytes: number; virtualSizeBytes: number }): void {
  const l1Entries = start.readUInt32BE(36);
  const l1Offset = start.readBigUInt64BE(40);
  const refcountOffset = start.readBigUInt64BE(48);
  const refcountClusters = start.readUInt32BE(56);
  const inside = (offset: bigint, bytes: number, name: string): void => {
    if (offset % BigInt(sizes.clusterBytes) !== 0n) throw new Qcow2Refused(`has its ${name} table at an odd place`);
    if (offset + BigInt(bytes) > BigInt(sizes.fileBytes)) throw new Qcow2Refused(`ends before its ${name} table: it was cut off`);
  };
  // Extended L2 entries are twice as large, so that a table of the same size maps half as much: the weaker bound holds for both.
  const bytesPerL1Entry = sizes.clusterBytes * (sizes.clusterBytes / 8);
  if (l1Entries < Math.ceil(sizes.virtualSizeBytes / bytesPerL1Entry))
    throw new Qcow2Refused("has a table that is too small for its disk");
  if (l1Entries * 8 > 32 * 1024 ** 2) throw new Qcow2Refused("has a table that is larger than any disk needs");
  if (refcountClusters * sizes.clusterBytes > 8 * 1024 ** 2)
    throw new Qcow2Refused("has a refcount table that is larger than any disk needs");
  inside(l1Offset, l1Entries * 8, "L1");
  inside(refcountOffset, refcountClusters * sizes.clusterBytes, "refcount");
  const snapshots = start.readUInt32BE(60);
  if (snapshots > 65_536) throw new Qcow2Refused(`has ${snapshots} snapshots, which cannot be`);
}
