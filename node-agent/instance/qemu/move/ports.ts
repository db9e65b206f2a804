import { createHash } from "node:crypto";

/** All ports of a range (first and last of it) once, beginning at one that differs from instance to instance. Pure. */
export function* portsFrom(range: readonly [number, number], instanceUid: string): Generator<number, void, undefined> {
  const [first, last] = range;
  const size = last - first + 1;
  const start = createHash("sha256").update(instanceUid).digest().readUInt32BE(0) % Math.max(size, 1);
  for (let offset = 0; offset < size; offset++) yield first + ((start + offset) % size);
}
