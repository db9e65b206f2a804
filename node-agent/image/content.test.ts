import { describe, expect, it } from "vitest";
import { recognise } from "./content.ts";
import { parseQcow2 } from "./qcow2.ts";

const CLUSTER = 65_536;
const GIB = 1024 ** 3;

/** A qcow2 header as qemu-img writes it, with some fields changed. */
function qcow2(change: (header: Buffer) => void = () => {}, version: 2 | 3 = 3): Buffer {
  const header = Buffer.alloc(4 * CLUSTER);
  header.writeUInt32BE(0x514649fb, 0);
  header.writeUInt32BE(version, 4);
  header.writeUInt32BE(16, 20);
  header.writeBigUInt64BE(BigInt(GIB), 24);
  header.writeUInt32BE(2, 36);
  header.writeBigUInt64BE(BigInt(3 * CLUSTER), 40);
  header.writeBigUInt64BE(BigInt(CLUSTER), 48);
  header.writeUInt32BE(1, 56);
  if (version === 3) {
    header.writeUInt32BE(4, 96);
    header.writeUInt32BE(112, 100);
  }
  change(header);
  return header;
}

const extension =
  (type: number, length = 8) =>
  (header: Buffer) => {
    header.writeUInt32BE(type, 112);
    header.writeUInt32BE(length, 116);
  };

describe("parseQcow2", () => {
  it.each([2, 3] as const)("takes a plain header of version %d", (version) => {
    const file = qcow2(undefined, version);
    expect(parseQcow2(file, file.length)).toEqual({ version, virtualSizeBytes: GIB, clusterBytes: CLUSTER });
  });

  it.each([
    ["zstd compression", (header: Buffer) => void (header.writeBigUInt64BE(8n, 72), header.writeUInt8(1, 104))],
    ["extended L2 entries", (header: Buffer) => void header.writeBigUInt64BE(16n, 72)],
    ["a feature name table", extension(0x6803f857, 48)],
  ] as [string, (h: Buffer) => void][])("takes %s", (_, change) => {
    const file = qcow2(change);
    expect(parseQcow2(file, file.length).virtualSizeBytes).toBe(GIB);
  });

  it.each([
    ["a backing file", (h: Buffer) => void h.writeBigUInt64BE(200n, 8), "needs another file as its backing file"],
    ["only a backing name's length", (h: Buffer) => void h.writeUInt32BE(9, 16), "needs another file as its backing file"],
    ["encryption", (h: Buffer) => void h.writeUInt32BE(1, 32), "is encrypted"],
    ["LUKS in an extension", extension(0x0537be77), "is encrypted"],
    ["an external data file", (h: Buffer) => void h.writeBigUInt64BE(4n, 72), "keeps its data in another file"],
    ["a data file's name", extension(0x44415441), "names another file for its data"],
    ["a backing format", extension(0xe2792aca), "names the format of a backing file"],
    ["the corrupt mark", (h: Buffer) => void h.writeBigUInt64BE(2n, 72), "is marked as corrupt"],
    ["the dirty mark", (h: Buffer) => void h.writeBigUInt64BE(1n, 72), "was not closed cleanly"],
    ["unknown features", (h: Buffer) => void h.writeBigUInt64BE(1n << 40n, 72), "features that are not known"],
    ["an unknown version", (h: Buffer) => void h.writeUInt32BE(4, 4), "of version 4"],
    ["tiny clusters", (h: Buffer) => void h.writeUInt32BE(3, 20), "clusters of 2^3"],
    ["huge clusters", (h: Buffer) => void h.writeUInt32BE(40, 20), "clusters of 2^40"],
    ["no size", (h: Buffer) => void h.writeBigUInt64BE(0n, 24), "a disk of 0 bytes"],
    ["an endless size", (h: Buffer) => void h.writeBigUInt64BE(2n ** 63n, 24), "which cannot be"],
    ["a size beyond its table", (h: Buffer) => void h.writeBigUInt64BE(BigInt(2000 * GIB), 24), "too small for its disk"],
    ["a table beyond the file", (h: Buffer) => void h.writeBigUInt64BE(BigInt(CLUSTER * 4), 40), "it was cut off"],
    ["a table in the middle of a cluster", (h: Buffer) => void h.writeBigUInt64BE(100n, 40), "at an odd place"],
    ["a huge table", (h: Buffer) => void h.writeUInt32BE(0xffffffff, 36), "larger than any disk needs"],
    ["a huge refcount table", (h: Buffer) => void h.writeUInt32BE(0xffffff, 56), "larger than any disk needs"],
    ["a header longer than a cluster", (h: Buffer) => void h.writeUInt32BE(1 << 20, 100), "which cannot be"],
    ["an extension longer than the header", extension(0x1234, 0xffffffff), "runs out of its first cluster"],
    ["an unknown compression", (h: Buffer) => void (h.writeBigUInt64BE(8n, 72), h.writeUInt8(9, 104)), "compressed in a way"],
  ] as [string, (h: Buffer) => void, string][])("refuses %s", (_, change, message) => {
    const file = qcow2(change);
    expect(() => parseQcow2(file, file.length)).toThrow(message);
  });

  it("refuses one that ends within its header", () => {
    for (const length of [4, 20, 71, 90])
      expect(() => parseQcow2(qcow2().subarray(0, length), length)).toThrow("ends within its header");
  });
});

describe("recognise", () => {
  const raw = (): Buffer => {
    const disk = Buffer.alloc(64 * 1024);
    disk.writeUInt16BE(0x55aa, 510);
    return disk;
  };

  it("knows qcow2 and raw by content", () => {
    expect(recognise(qcow2(), 4 * CLUSTER)).toEqual({ format: "qcow2", virtualSizeBytes: GIB });
    expect(recognise(raw(), 64 * 1024)).toEqual({ format: "raw", virtualSizeBytes: 64 * 1024 });
  });

  it.each([
    ["gzip", Buffer.from("1f8b0800", "hex"), "compressed with gzip"],
    ["xz", Buffer.from("fd377a585a00", "hex"), "compressed with xz"],
    ["zip", Buffer.from("PK\x03\x04"), "zip archive"],
    ["VMDK", Buffer.from("KDMV"), "VMDK"],
    ["a web page", Buffer.from("<!doctype html>"), "neither qcow2 nor a raw disk"],
    ["nothing", Buffer.alloc(0), "neither qcow2 nor a raw disk"],
    ["zeros", Buffer.alloc(4096), "neither qcow2 nor a raw disk"],
  ])("refuses %s", (_, start, message) => expect(() => recognise(start, start.length)).toThrow(message));

  it("refuses a CD image that no disk boots from", () => {
    const iso = Buffer.alloc(40_000);
    iso.write("CD001", 32_769, "latin1");
    expect(() => recognise(iso, iso.length)).toThrow("is a CD image");
  });

  it("refuses a hostile qcow2 in the parser's words", () => {
    const hostile = qcow2((header) => void header.writeBigUInt64BE(200n, 8));
    expect(() => recognise(hostile, hostile.length)).toThrow("backing file");
  });
});
