/** What a downloaded file is, by its content and never by its name. Pure. */
import { isQcow2, parseQcow2, Qcow2Refused } from "./qcow2.ts";

export type ImageContent = { format: "qcow2"; virtualSizeBytes: number } | { format: "raw"; virtualSizeBytes: number };

/** Says what the file is instead, in words that follow "the file". */
export class NotAnImage extends Error {}

/** Beginnings of files that are taken for disk images, and what to do with them. */
const OTHERS: [magic: string, offset: number, what: string][] = [
  ["\x1f\x8b", 0, "is compressed with gzip; publish it unpacked, or as qcow2"],
  ["\xfd7zXZ\0", 0, "is compressed with xz; publish it unpacked, or as qcow2"],
  ["\x28\xb5\x2f\xfd", 0, "is compressed with zstd; publish it unpacked, or as qcow2"],
  ["BZh", 0, "is compressed with bzip2; publish it unpacked, or as qcow2"],
  ["PK\x03\x04", 0, "is a zip archive; publish the disk image in it"],
  ["7z\xbc\xaf\x27\x1c", 0, "is a 7z archive; publish the disk image in it"],
  ["ustar", 257, "is a tar archive; publish the disk image in it"],
  ["KDMV", 0, "is a VMDK image; convert it (qemu-img convert -O qcow2)"],
  ["vhdxfile", 0, "is a VHDX image; convert it (qemu-img convert -O qcow2)"],
  ["conectix", 0, "is a VHD image; convert it (qemu-img convert -O qcow2)"],
  ["<<< Oracle VM", 0, "is a VDI image; convert it (qemu-img convert -O qcow2)"],
];

const BOOT_SIGNATURE = 510;
const ISO_SIGNATURE = 32_769;

/**
 * Tells qcow2 and raw disk images from everything else. A raw image is one with a boot sector (MBR, or GPT with its
 * protective MBR): without one no machine would start from it.
 * @param start the file's first bytes: QCOW2_HEADER_BYTES of them, or all
 * @throws NotAnImage
 */
export function recognise(start: Buffer, fileBytes: number): ImageContent {
  if (isQcow2(start)) {
    try {
      return { format: "qcow2", virtualSizeBytes: parseQcow2(start, fileBytes).virtualSizeBytes };
    } catch (error) {
      if (error instanceof Qcow2Refused) throw new NotAnImage(error.message, { cause: error });
      throw error;
    }
  }
  const other = OTHERS.find(([magic, offset]) => start.toString("latin1", offset, offset + magic.length) === magic);
  if (other) throw new NotAnImage(other[2]);
  const bootable = start.length > BOOT_SIGNATURE + 1 && start.readUInt16BE(BOOT_SIGNATURE) === 0x55aa;
  if (bootable) return { format: "raw", virtualSizeBytes: fileBytes };
  if (start.toString("latin1", ISO_SIGNATURE, ISO_SIGNATURE + 5) === "CD001")
    throw new NotAnImage("is a CD image; a disk image is needed");
  throw new NotAnImage("is neither qcow2 nor a raw disk with a boot sector");
}
