/** Real QEMU under TCG, and its guest agent in a real guest. */
import { readFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { signal, skipped, unable, useGuests, WAIT } from "./qemu/fixture.ts";

const TICKS_PER_SECOND = 100;
/** With a deadline of 1 ms. Not each of those that are given up comes at the wrong moment: when the guest has read it, and has not answered. */
const ASKED = 12;

/** What a process takes of a processor from now on for so long: 1 is all of one. */
async function use(pid: number, seconds: number): Promise<number> {
  const ticks = async (): Promise<number> => {
    const text = await readFile(`/proc/${pid}/stat`, "utf8");
    const fields = text.slice(text.lastIndexOf(") ") + 2).split(" ");
    return Number(fields[11]) + Number(fields[12]);
  };
  const before = await ticks();
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  return ((await ticks()) - before) / TICKS_PER_SECOND / seconds;
}

describe.skipIf(unable !== undefined)(`the guest agent of a guest${skipped}`, () => {
  const guests = useGuests();

  test("whose answer comes when nobody waits for it any more gets rid of it, and the guest is as idle as before", async () => {
    const wanted = await guests.plan("LINUX", { memoryMib: 192 });
    const { pid } = await guests.driver.start(wanted, signal);
    const ping = (deadlineMs: number): Promise<boolean> => guests.driver.pingGuestAgent(guests.instanceUid, deadlineMs);
    await expect.poll(() => ping(2000), { ...WAIT, timeout: 60_000 }).toBe(true);
    const idle = (): Promise<void> => expect.poll(() => use(pid, 0.25), { timeout: 10_000, interval: 0 }).toBeLessThan(0.25);
    await idle();
    let late = 0;
    for (let n = 0; n < ASKED; n++) {
      if (!(await ping(1))) late += 1;
      await idle();
    }
    expect(late).toBeGreaterThan(0);
    expect(await ping(5_000)).toBe(true);
  });
});
