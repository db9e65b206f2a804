/**
 * QEMU's auto-converge can only be switched on before the copying begins. So it is on from the start, with figures that make it
 * harmless, and gets others when the guest is to be slowed.
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

/** It may take one percent, whenever it finds a reason. */
export const UNTHROTTLED = {
  "cpu-throttle-initial": 1,
  "cpu-throttle-increment": 1,
  "max-cpu-throttle": 1,
  // any amount of writing is a reason: so that a throttle that was on falls back to the one percent
  "throttle-trigger-threshold": 1,
} as const;

/** Writing more than a quarter of what was sent is a reason. */
export const THROTTLED = {
  "cpu-throttle-initial": 20,
  "cpu-throttle-increment": 15,
  "max-cpu-throttle": 99,
  "throttle-trigger-threshold": 25,
} as const;

/** QEMU's own figures. */
export const THROTTLE_DEFAULTS = {
  "cpu-throttle-initial": 20,
  "cpu-throttle-increment": 10,
  "max-cpu-throttle": 99,
  "throttle-trigger-threshold": 50,
} as const;
