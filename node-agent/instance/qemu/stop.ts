/** A clean stop: the guest is asked, in two ways, and given time. */
import { errorText } from "../../errors.ts";
import type { ProcessId } from "../../ovs/process.ts";
import { DEADLINE, type QemuContext } from "./context.ts";
import { goneWithin } from "./process.ts";
import { systemPowerdown } from "./qmp/commands.ts";
import { within } from "./within.ts";

export interface CleanStop {
  instanceUid: string;
  process: ProcessId;
  deadlineMs: number;
  /** Resolves at the next change of the instance. */
  nextChange: () => Promise<void>;
}

/**
 * Asks the guest agent, else presses the power button; after half of the time does both again what has not worked. Resolves
 * when the guest has ended or its time is over; whoever asked ends QEMU then.
 */
export async function stopClean(context: QemuContext, stop: CleanStop, signal: AbortSignal): Promise<void> {
  const { clock } = context;
  const end = clock.monotonic() + stop.deadlineMs;
  const asked = await askGuest(context, stop);
  const firstHalf = asked ? stop.deadlineMs / 2 : stop.deadlineMs;
  if (await endedBefore(context, stop, clock.monotonic() + firstHalf, signal)) return;
  if (asked) await pressPowerButton(context, stop);
  await endedBefore(context, stop, end, signal);
}

/** Whether the guest agent took it; else the power button has been pressed. */
async function askGuest(context: QemuContext, stop: CleanStop): Promise<boolean> {
  try {
    await context.guestAgents.shutdown(stop.instanceUid, Math.min(DEADLINE.guestAgent, stop.deadlineMs));
    return true;
  } catch (error) {
    context.log.debug({ instanceUid: stop.instanceUid, error: errorText(error) }, "no guest agent: pressing the power button");
  }
  await pressPowerButton(context, stop);
  return false;
}

async function pressPowerButton(context: QemuContext, stop: CleanStop): Promise<void> {
  try {
    await systemPowerdown(await context.monitors.session(stop.instanceUid, DEADLINE.ask));
  } catch (error) {
    // it may have ended in this moment; if it hangs instead, the force that follows ends it
    context.log.debug({ instanceUid: stop.instanceUid, error: errorText(error) }, "the power button does not work");
  }
}

async function endedBefore(context: QemuContext, stop: CleanStop, end: number, signal: AbortSignal): Promise<boolean> {
  const { clock } = context;
  for (;;) {
    const change = stop.nextChange();
    if (await goneWithin(stop.process, 0, clock)) return true;
    const left = end - clock.monotonic();
    if (left <= 0) return false;
    await within(change, left, clock, signal).catch(() => signal.throwIfAborted());
  }
}
