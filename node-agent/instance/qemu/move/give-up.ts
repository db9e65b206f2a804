/** Back to an ordinary guest: nothing of the move is left at the source. */
import { errorText } from "../../../errors.ts";
import { queryStatus } from "../qmp/commands.ts";
import type { QmpSession } from "../qmp/session.ts";
import { queryMigrate, queryMirrors, queryMoveNodes, queryMoveObjects, setCapabilities, setParameters } from "./commands.ts";
import { isMigration, type MoveEvents } from "./events.ts";
import { diskOf, MOVE_DEADLINE } from "./names.ts";
import { isUnderWay, OUTGOING, type Outgoing } from "./outgoing.ts";
import { monitorOf, type MoveParts } from "./parts.ts";
import { removeSecret } from "./secret.ts";
import { THROTTLE_DEFAULTS } from "./throttle.ts";

const DEADLINE = { deadlineMs: MOVE_DEADLINE.giveUp };

/** Run states that only a move brings about: nothing else of Drover's stops a guest that it means to go on. */
const STOPPED_BY_MOVE = new Set(["paused", "finish-migrate", "postmigrate"]);

type Listening = ReturnType<MoveEvents["listen"]>;

/**
 * Breaks the connections first, so that nothing waits for a dead link; then the guest runs again; then the rest is taken away.
 * May be repeated, and called when there is nothing to give up. Throws when a step does not end in time.
 */
export async function giveUp(parts: MoveParts, outgoing: Outgoing): Promise<void> {
  const { instanceUid, door } = outgoing;
  const listening = parts.events.listen(instanceUid);
  try {
    try {
      await door.yank();
    } catch (error) {
      // without it the rest still works unless the link is dead too
      parts.context.log.warn({ instanceUid, error: errorText(error) }, "the connections of the move could not be broken");
    }
    const qmp = await monitorOf(parts, instanceUid);
    await endMigration(qmp, listening);
    const { status } = await queryStatus(qmp);
    if (STOPPED_BY_MOVE.has(status)) await qmp.execute("cont", {}, DEADLINE);
    await endMirrors(qmp, listening, { force: true });
    await removeNodes(qmp);
    await reset(qmp);
    await removeSecret(parts.context.paths, instanceUid);
  } finally {
    listening.stop();
    door.close();
  }
}

/** After complete: the target has the guest, and gets its disks to itself. */
export async function release(parts: MoveParts, outgoing: Outgoing): Promise<void> {
  const { instanceUid, door } = outgoing;
  const listening = parts.events.listen(instanceUid);
  try {
    const qmp = await monitorOf(parts, instanceUid);
    await endMirrors(qmp, listening, { force: true });
    await removeNodes(qmp);
    await removeSecret(parts.context.paths, instanceUid);
  } finally {
    listening.stop();
    door.close();
  }
}

async function endMigration(qmp: QmpSession, { until }: Listening): Promise<void> {
  if (!isUnderWay(await queryMigrate(qmp))) return;
  await qmp.execute("migrate_cancel", {}, DEADLINE);
  if (!isUnderWay(await queryMigrate(qmp))) return;
  await until(isMigration("cancelled", "failed", "completed"), "the end of the memory's copying", { ms: MOVE_DEADLINE.giveUp });
}

/** Ends the copying of disks, and forgets what has ended. May be repeated. */
export async function endMirrors(qmp: QmpSession, { until }: Listening, { force }: { force: boolean }): Promise<void> {
  const mirrors = await queryMirrors(qmp);
  for (const { job, disk } of mirrors.filter((one) => !one.concluded)) {
    await qmp.execute("block-job-cancel", { device: job, force }, DEADLINE);
    const ended = (event: { name: string; data: { [key: string]: unknown } }): boolean =>
      (event.name === "BLOCK_JOB_CANCELLED" || event.name === "BLOCK_JOB_COMPLETED") &&
      diskOf(String(event.data["device"])) === disk;
    await until(ended, `the end of disk ${disk}'s copying`, { ms: MOVE_DEADLINE.giveUp });
  }
  for (const { job } of await queryMirrors(qmp)) await qmp.execute("job-dismiss", { id: job }, DEADLINE);
}

async function removeNodes(qmp: QmpSession): Promise<void> {
  for (const node of await queryMoveNodes(qmp)) await qmp.execute("blockdev-del", { "node-name": node }, DEADLINE);
  const objects = await queryMoveObjects(qmp);
  if (objects.length === 0) return;
  await setParameters(qmp, { "tls-creds": "" });
  for (const id of objects) await qmp.execute("object-del", { id }, DEADLINE);
}

/** QEMU's own figures again. */
async function reset(qmp: QmpSession): Promise<void> {
  const off = Object.fromEntries(
    [...Object.keys(OUTGOING), "multifd", "postcopy-ram", "auto-converge"].map((name) => [name, false]),
  );
  await setParameters(qmp, {
    "max-bandwidth": 128 * 2 ** 20,
    "avail-switchover-bandwidth": 0,
    "downtime-limit": 300,
    "tls-creds": "",
    ...THROTTLE_DEFAULTS,
  });
  await setCapabilities(qmp, off);
}
