/** Reads the guest's record log from its raw disk, from outside, and says whether it is whole. Layout: src/guest.h. */
import { open } from "node:fs/promises";
import { crc32 } from "node:zlib";

const RECORDS_AT = 64 << 20;
const SECTOR = 512;
const CRC_AT = SECTOR - 4;
const MAGIC = "DROVREC1";

export interface LogReport {
  /** Whole records, 1 to this, without a gap. */
  records: number;
  /** The sector behind the last whole record holds something that is no whole record. */
  torn: boolean;
  /** A whole record lies behind the first sector that holds none. */
  hole: boolean;
}

/** Whether `sector` holds record `number`, bit for bit as it was written. */
const isWhole = (sector: Buffer, number: number): boolean =>
  sector.toString("latin1", 0, 8) === MAGIC &&
  sector.readBigUInt64LE(8) === BigInt(number) &&
  sector.readUInt32LE(CRC_AT) === crc32(sector.subarray(0, CRC_AT));

/** Looks at the sectors of the region one by one; `sectors` gives them in order. */
export const checkSectors = (sectors: Iterable<Buffer>): LogReport => {
  const report: LogReport = { records: 0, torn: false, hole: false };
  let ended = false;
  let at = 0;
  for (const sector of sectors) {
    at += 1;
    const whole = isWhole(sector, at);
    if (!ended && whole) {
      report.records = at;
      continue;
    }
    if (!ended) report.torn = sector.some((byte) => byte !== 0);
    ended = true;
    if (whole) report.hole = true;
  }
  return report;
};

/**
 * Checks the log on a raw disk file. Looks 4096 sectors past the last whole record for records that a gap cut off.
 * Throws what the file system throws.
 */
export const checkLog = async (disk: string): Promise<LogReport> => {
  const file = await open(disk, "r");
  try {
    const chunk = Buffer.alloc(SECTOR * 4096);
    const sectors: Buffer[] = [];
    for (let at = RECORDS_AT; ; at += chunk.length) {
      const { bytesRead } = await file.read(chunk, 0, chunk.length, at);
      const found = Array.from({ length: Math.floor(bytesRead / SECTOR) }, (_, i) =>
        Buffer.from(chunk.subarray(i * SECTOR, (i + 1) * SECTOR)),
      );
      sectors.push(...found);
      if (found.every((sector) => sector.every((byte) => byte === 0))) break;
    }
    return checkSectors(sectors);
  } finally {
    await file.close();
  }
};

/** What is wrong with a log of which an observer saw record `acknowledged` confirmed; undefined when nothing is. */
export const logProblem = (report: LogReport, acknowledged: number): string | undefined => {
  if (report.records < acknowledged) return `records ${report.records + 1} to ${acknowledged} were acknowledged and are lost`;
  if (report.hole) return `a gap after record ${report.records}`;
  if (report.torn) return `a torn record after ${report.records}`;
  return undefined;
};
