/** An image's checksum as an instance gives it. */
import { createHash, type Hash } from "node:crypto";
import { ImageError } from "./errors.ts";

export interface Checksum {
  algorithm: "sha256" | "sha512";
  /** Also the image's name on the node. */
  hex: string;
  hash: () => Hash;
}

/** Throws ImageError when the text is not `sha256:<64 hex digits>` or `sha512:<128 hex digits>`. */
export function parseChecksum(text: string): Checksum {
  const match = /^(?:(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128}))$/.exec(text);
  const algorithm = match?.[1] ?? match?.[3];
  const hex = match?.[2] ?? match?.[4];
  if (hex === undefined || (algorithm !== "sha256" && algorithm !== "sha512")) {
    throw new ImageError("ChecksumMismatch", "image.checksum must be sha256:<64 hex digits> or sha512:<128 hex digits>");
  }
  return { algorithm, hex, hash: () => createHash(algorithm) };
}
