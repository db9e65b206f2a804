/**
 * QEMU's auto-converge can only be switched on before the copying begins. So it is on from the start of a move whose guest may come to be
 * slowed, with figures that make it harmless, and gets others when that is so.
 *
 * Not of any other move: a copying that ends while QEMU has just told a CPU to sleep leaves, as we understand its source, that CPU marked as
 * one that is about to, and nobody tells it again as long as this QEMU lives. That it slows no more was seen with 10.0, within 20 moves that
 * were given up on a busy machine, with the guest slowed by 1 %, which is told each 10 ms. Slowed by 96 % it is told four times a second.
 */
import type { QmpSession } from "../qmp/session.ts";
import { queryMirrors } from "./commands.ts";

/** A copy that is further behind than this does not get there by itself. */
const BEHIND_BYTES = 16 * 2 ** 20;

/**
 * Makes the guest's writes wait for the copy, for disks that are far behind: QEMU offers no other way to slow them. It lasts until
 * the move ends; with a dead link these writes stand still until the move is given up.
 */
export async function slowWrites(qmp: QmpSession): Promise<void> {
  const behind = (await queryMirrors(qmp)).filter(
    (one) => one.ready && !one.concluded && one.totalBytes - one.doneBytes > BEHIND_BYTES,
  );
  await Promise.all(
    behind.map(({ job }) => qmp.execute("block-job-change", { id: job, type: "mirror", "copy-mode": "write-blocking" })),
  );
}

/** It may take one percent, and only of a guest that writes more than is sent: QEMU knows no smaller figures. */
export const UNTHROTTLED = {
  "cpu-throttle-initial": 1,
  "cpu-throttle-increment": 1,
  "max-cpu-throttle": 1,
  "throttle-trigger-threshold": 100,
} as const;

/**
 * Writing more than a quarter of what was sent is a reason. QEMU goes a step further after two passes that found one: four steps from none
 * to the most, for that the memory does not converge is known by then. QEMU lets the guest run for 10 ms at a time, so the most decides how long
 * it sleeps in between: 240 ms at 96 %, which is within the pause that is allowed as a rule; 990 ms at 99 %. By QEMU's source a CPU that
 * wakes more than 10 ms late misses its next sleep, and runs for as long as it would have slept.
 */
export const THROTTLED = {
  "cpu-throttle-initial": 25,
  "cpu-throttle-increment": 25,
  "max-cpu-throttle": 96,
  "throttle-trigger-threshold": 25,
} as const;

/** QEMU's own figures. */
export const THROTTLE_DEFAULTS = {
  "cpu-throttle-initial": 20,
  "cpu-throttle-increment": 10,
  "max-cpu-throttle": 99,
  "throttle-trigger-threshold": 50,
} as const;
