/**
 * Post-copy whose connection broke: both QEMUs keep what they have, and the rest of the memory goes over a new connection. A guest that
 * waits for a page may hold up its QEMU's main loop, so all that is asked of the target is asked out of band.
 */
import { DEADLINE, type QemuContext } from "../context.ts";
import { QmpError } from "../qmp/errors.ts";
import type { QmpSession } from "../qmp/session.ts";
import type { Offer } from "../../move.ts";
import { memoryChannel } from "./commands.ts";
import { isMigration, type MoveEvents } from "./events.ts";
import { MOVE_DEADLINE } from "./names.ts";
import type { Outgoing } from "./outgoing.ts";
import { monitorOf, type MoveParts } from "./parts.ts";

const OUT_OF_BAND = { outOfBand: true, deadlineMs: MOVE_DEADLINE.yank };

/** The target listens for the rest, where it listened before. May be repeated: the last call counts. */
export async function receiveRest(context: QemuContext, events: MoveEvents, instanceUid: string): Promise<Offer> {
  const offer = (await context.notes.read(instanceUid))?.run?.incoming?.offer;
  if (!offer) throw new Error("no guest has come in here");
  const qmp = await context.monitors.session(instanceUid, DEADLINE.ask);
  await standStill(qmp, events, instanceUid);
  const { address, ramPort } = offer;
  const host = address.includes(":") ? `[${address}]` : address;
  await qmp.execute("migrate-recover", { uri: `tcp:${host}:${ramPort}` }, OUT_OF_BAND);
  return offer;
}

/** Resolves when the rest of the memory is on its way again. */
export async function sendRest(
  parts: MoveParts,
  { instanceUid }: Outgoing,
  { address, ramPort }: Pick<Offer, "address" | "ramPort">,
): Promise<void> {
  const qmp = await monitorOf(parts, instanceUid);
  await standStill(qmp, parts.events, instanceUid);
  const { until, stop } = parts.events.listen(instanceUid);
  try {
    await qmp.execute("migrate", { ...memoryChannel(address, ramPort), resume: true });
    const ended = isMigration("postcopy-active", "postcopy-paused", "completed");
    const { data } = await until(ended, "reaching the target again", { ms: MOVE_DEADLINE.connect });
    if (data["status"] === "postcopy-paused") throw new Error("the target was not reached");
  } finally {
    stop();
  }
}

/** Lets go of a connection that may be dead without anybody having noticed. */
async function standStill(qmp: QmpSession, events: MoveEvents, instanceUid: string): Promise<void> {
  const { until, stop } = events.listen(instanceUid);
  try {
    await qmp.execute("migrate-pause", {}, OUT_OF_BAND);
    await until(isMigration("postcopy-paused", "completed"), "the end of the broken connection", { ms: MOVE_DEADLINE.giveUp });
  } catch (error) {
    // it stands still already
    if (!(error instanceof QmpError)) throw error;
  } finally {
    stop();
  }
}
