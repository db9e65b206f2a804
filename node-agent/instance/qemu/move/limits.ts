/** One limit for all that a move sends, divided. Pure. */
import { UNLIMITED } from "./names.ts";

/** What disks that are in step may use while memory is copied: what the guest writes to them. */
const DISK_SHARE = 0.25;

export interface Shares {
  memory: number;
  /** For each mirror; 0 is QEMU's word for no limit. */
  mirror: number;
}

export function divide(bytesPerSecond: number | undefined, now: { mirrors: number; memory: boolean }): Shares {
  if (bytesPerSecond === undefined) return { memory: UNLIMITED, mirror: 0 };
  const { mirrors, memory } = now;
  if (mirrors === 0) return { memory: whole(bytesPerSecond), mirror: 0 };
  if (!memory) return { memory: whole(bytesPerSecond), mirror: whole(bytesPerSecond / mirrors) };
  const disks = bytesPerSecond * DISK_SHARE;
  return { memory: whole(bytesPerSecond - disks), mirror: whole(disks / mirrors) };
}

const whole = (rate: number): number => Math.max(1, Math.floor(rate));
