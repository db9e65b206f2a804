import { crc32 } from "node:zlib";
import { describe, expect, test } from "vitest";
import { checkSectors, logProblem } from "./check-log.ts";

const record = (number: number): Buffer => {
  const sector = Buffer.alloc(512, number % 251);
  sector.write("DROVREC1", 0, "latin1");
  sector.writeBigUInt64LE(BigInt(number), 8);
  sector.writeUInt32LE(crc32(sector.subarray(0, 508)), 508);
  return sector;
};
const empty = Buffer.alloc(512);
const log = (count: number): Buffer[] => Array.from({ length: count }, (_, i) => record(i + 1));
const torn = (number: number): Buffer => Buffer.concat([record(number).subarray(0, 256), Buffer.alloc(256)]);

describe.each([
  ["a whole log", [...log(5), empty, empty], 5, undefined],
  ["records that nobody saw acknowledged", [...log(7), empty], 5, undefined],
  ["an empty disk", [empty, empty], 0, undefined],
  ["a truncated log", [...log(3), empty, empty], 5, "records 4 to 5 were acknowledged and are lost"],
  ["a torn record that was acknowledged", [...log(4), torn(5), empty], 5, "records 5 to 5 were acknowledged and are lost"],
  ["a torn record at the end", [...log(5), torn(6), empty], 5, "a torn record after 5"],
  ["a gap", [...log(5), empty, record(7)], 5, "a gap after record 5"],
  ["a record in another's place", [record(1), record(3)], 1, "a torn record after 1"],
])("%s", (_, sectors, acknowledged, problem) => {
  test("is judged right", () => expect(logProblem(checkSectors(sectors), acknowledged)).toBe(problem));
});
