/** A guest that has just come to run in another QEMU. */
import type { InstanceDriver } from "../instance/driver.ts";

/** Where no guest agent answers. */
const FIRST_MOMENTS_MS = 100;

/**
 * Its first moments there are its own: under emulation all of its code is translated anew, and what is left to do (words, records, the end
 * of the other QEMU, the port) would take the processor from that. Resolves when its guest agent answers, or a little later; the answer is
 * waited for all the same.
 */
export async function firstMoments(driver: Pick<InstanceDriver, "pingGuestAgent">, instanceUid: string): Promise<void> {
  await driver.pingGuestAgent(instanceUid, FIRST_MOMENTS_MS);
}
