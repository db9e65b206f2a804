/** Moves that fail or are given up, on real QEMUs: the guest runs on where it was, and nothing of the move is left. */
import { describe, expect, test } from "vitest";
import type { MachinePlan } from "../../node-agent/instance/driver.ts";
import type { OutgoingPlan, OutgoingState } from "../../node-agent/instance/move.ts";
import { signal, skipped, unable, WAIT } from "./qemu/fixture.ts";
import { dirty, expectNoTrace, expectRuns, newSecret, useMoves, type Node } from "./qemu/move-fixture.ts";

/** Giving up takes no longer, however dead the link. */
const GIVE_UP_MS = 10_000;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

describe.skipIf(unable !== undefined)(`live moves that fail${skipped}`, () => {
  const t = useMoves("file");
  let plan: MachinePlan | undefined;

  /** How far a move is when something happens to it. */
  const stages = {
    "while disks are copied": async (out) => {
      const copying = t.a.moves.copyDisks(t.instanceUid, { ...out, maxBytesPerSecond: 2 ** 20 }, signal);
      copying.catch(() => undefined);
      await pause(500);
    },
    "once disks are in step": (out) => t.a.moves.copyDisks(t.instanceUid, out, signal),
    "while memory is copied": async (out) => {
      await stages["once disks are in step"](out);
      await t.a.moves.copyMemory(t.instanceUid, { ...out, maxBytesPerSecond: 20 * 2 ** 20 }, signal);
      await pause(500);
    },
    "when only the pause is missing": async (out) => {
      await stages["once disks are in step"](out);
      await t.a.moves.copyMemory(t.instanceUid, out, signal);
      await t.rounds(2);
    },
    "while the guest stands still": async (out) => {
      await stages["when only the pause is missing"](out);
      const held = heldAt(t.a);
      await t.a.moves.allowPause(t.instanceUid, 1_000);
      await held;
    },
    "after complete, before it runs at the target": async (out) => {
      await stages["when only the pause is missing"](out);
      await t.a.moves.allowPause(t.instanceUid, 1_000);
      await t.a.moves.finish(t.instanceUid, signal);
    },
  } satisfies Record<string, (out: OutgoingPlan) => Promise<void>>;

  const OUTGOING: { [stage: string]: OutgoingState } = {
    "while memory is copied": "copying",
    "when only the pause is missing": "copying",
    "while the guest stands still": "held",
    "after complete, before it runs at the target": "complete",
  };

  const names = Object.keys(stages) as (keyof typeof stages)[];

  const heldAt = ({ moves }: Node): Promise<void> =>
    new Promise((resolve) => {
      const stop = moves.onMove(t.instanceUid, ({ kind }) => {
        if (kind !== "held") return;
        stop();
        resolve();
      });
    });

  /** The one guest of all these tests, at `a`; whatever was received at `b` before is away. */
  async function guest(): Promise<MachinePlan> {
    if (plan) return plan;
    plan = await t.start();
    await dirty(t.a, t.instanceUid, 20, 16);
    return plan;
  }

  async function reach(stage: keyof typeof stages): Promise<MachinePlan> {
    const here = await guest();
    const arrival = await t.receive(t.b, here, { secret: newSecret() });
    await stages[stage](t.outgoing(arrival, here));
    expect(await t.a.moves.outgoing(t.instanceUid)).toBe(OUTGOING[stage] ?? "idle");
    return here;
  }

  /** Where it was before, without a trace; and the target is rid of it. */
  async function expectGivenUp(here: MachinePlan): Promise<void> {
    await expectRuns(t.a, here);
    await expectNoTrace(t.a, here);
    expect(await t.a.moves.outgoing(t.instanceUid)).toBe("idle");
    await t.b.moves.abandon(t.instanceUid);
    expect(await t.b.driver.observe(t.instanceUid)).toMatchObject({ state: "absent" });
  }

  async function giveUpInTime(): Promise<void> {
    const from = performance.now();
    await t.a.moves.giveUp(t.instanceUid);
    expect(performance.now() - from).toBeLessThan(GIVE_UP_MS);
  }

  const targetPid = async (): Promise<number> => (await t.b.driver.observe(t.instanceUid)).pid ?? 0;

  describe("given up", () => {
    test.each(names)("%s", async (stage) => {
      const here = await reach(stage);
      await giveUpInTime();
      await giveUpInTime();
      await expectGivenUp(here);
      await t.b.moves.abandon(t.instanceUid);
      expect(await t.b.moves.incoming(t.instanceUid)).toBe("gone");
    });
  });

  describe("the target's QEMU is killed", () => {
    test.each(names)("%s", async (stage) => {
      const here = await reach(stage);
      const finishing = stage === "while the guest stands still" ? t.a.moves.finish(t.instanceUid, signal) : undefined;
      if (!finishing) process.kill(await targetPid(), "SIGKILL");
      else {
        process.kill(await targetPid(), "SIGKILL");
        await finishing.catch(() => undefined);
      }
      await expect.poll(() => t.b.driver.observe(t.instanceUid), WAIT).toMatchObject({ state: "absent" });
      expect(await t.b.moves.incoming(t.instanceUid)).toBe("gone");
      await giveUpInTime();
      await expectGivenUp(here);
    });
  });

  describe("the link is dead: nothing comes from the target any more", () => {
    test.each(names)("%s", async (stage) => {
      const here = await reach(stage);
      const pid = await targetPid();
      process.kill(pid, "SIGSTOP");
      try {
        await pause(1_500); // the guest writes on, into a mirror that stands still
        await giveUpInTime();
        await expectRuns(t.a, here);
        await expectNoTrace(t.a, here);
      } finally {
        process.kill(pid, "SIGCONT");
      }
      expect(["waiting", "gone", "complete"]).toContain(await t.b.moves.incoming(t.instanceUid));
      await expectGivenUp(here);
    });

    test("when the guest is to be stopped: QEMU hangs, and is freed", async () => {
      const here = await reach("when only the pause is missing");
      const pid = await targetPid();
      process.kill(pid, "SIGSTOP");
      try {
        await pause(500);
        await t.a.moves.allowPause(t.instanceUid, 60_000);
        const finishing = t.a.moves.finish(t.instanceUid, signal).catch((error: unknown) => error);
        await pause(1_500);
        await giveUpInTime();
        expect(await finishing).toBeInstanceOf(Error);
        await expectRuns(t.a, here);
        await expectNoTrace(t.a, here);
      } finally {
        process.kill(pid, "SIGCONT");
      }
      await expectGivenUp(here);
    });

    test("in the middle of the switchover: QEMU hangs, and is freed", async () => {
      const here = await reach("while the guest stands still");
      const pid = await targetPid();
      process.kill(pid, "SIGSTOP");
      try {
        const finishing = t.a.moves.finish(t.instanceUid, signal).catch((error: unknown) => error);
        await pause(1_500);
        await giveUpInTime();
        expect(await finishing).toBeInstanceOf(Error);
        await expectRuns(t.a, here);
        await expectNoTrace(t.a, here);
      } finally {
        process.kill(pid, "SIGCONT");
      }
      await expectGivenUp(here);
    });
  });

  test("a wrong key is refused", async () => {
    const here = await guest();
    const arrival = await t.receive(t.b, here, { secret: newSecret() });
    const out = { ...t.outgoing(arrival, here), secret: newSecret() };
    await expect(t.a.moves.copyDisks(t.instanceUid, out, signal)).rejects.toThrow("blockdev-add");
    await giveUpInTime();
    // memory alone, too
    await expect(t.a.moves.copyMemory(t.instanceUid, { ...out, copy: [] }, signal)).rejects.toThrow("could not be moved");
    await giveUpInTime();
    // and none at all
    await expect(t.a.moves.copyDisks(t.instanceUid, { ...out, secret: undefined }, signal)).rejects.toThrow("blockdev-add");
    await giveUpInTime();
    expect(await t.b.moves.incoming(t.instanceUid)).toBe("waiting");
    await expectGivenUp(here);
  });

  test("a QEMU that waits is told from a guest: not started, not failed, abandoned without a trace", async () => {
    const first = await t.receive(t.b, await guest());
    expect(await t.b.driver.observe(t.instanceUid)).toMatchObject({ state: "paused", runState: "inmigrate" });
    expect(await t.b.moves.incoming(t.instanceUid)).toBe("waiting");
    await expect(t.b.driver.start(first.plan, signal)).rejects.toMatchObject({ reason: "ReceivesGuest" });
    await t.b.moves.abandon(t.instanceUid);
    expect(await t.b.driver.observe(t.instanceUid)).toMatchObject({ state: "absent" });
    expect((await t.b.driver.observe(t.instanceUid)).note?.run).toBeUndefined();
    expect(await t.b.moves.incoming(t.instanceUid)).toBe("gone");
    expect(await t.b.machine.processes()).toEqual([]);
  });

  test("agents that are replaced on the way go on with what is there", async () => {
    const here = await guest();
    const secret = newSecret();
    const arrival = await t.receive(t.b, here, { secret });
    const out = t.outgoing(arrival, here);
    await t.replaceAgents();
    const copy = here.disks.map(({ id }) => ({ disk: id, sizeBytes: 0 }));
    const incoming = { machine: arrival.plan, copy, address: arrival.offer.address, ports: [1, 2] as const, secret, streams: 0 };
    expect(await t.b.moves.receive(incoming, signal)).toEqual(arrival.offer);
    await t.a.moves.copyDisks(t.instanceUid, out, signal);
    await t.replaceAgents();
    await t.a.moves.copyDisks(t.instanceUid, out, signal);
    await t.a.moves.copyMemory(t.instanceUid, out, signal);
    await t.replaceAgents();
    expect(await t.a.moves.outgoing(t.instanceUid)).toBe("copying");
    await t.a.moves.copyMemory(t.instanceUid, out, signal);
    const held = heldAt(t.a);
    await t.a.moves.allowPause(t.instanceUid, 1_000);
    await held;
    await t.replaceAgents();
    expect(await t.a.moves.outgoing(t.instanceUid)).toBe("held");
    await t.a.moves.finish(t.instanceUid, signal);
    await t.replaceAgents();
    await t.a.moves.finish(t.instanceUid, signal);
    expect(await t.a.moves.outgoing(t.instanceUid)).toBe("complete");
    await t.b.moves.resume(t.instanceUid);
    await t.replaceAgents();
    await t.b.moves.resume(t.instanceUid);
    expect(await t.b.moves.incoming(t.instanceUid)).toBe("running");
    await expect(t.b.moves.abandon(t.instanceUid)).rejects.toThrow("cannot be abandoned");
    await t.a.moves.release(t.instanceUid);
    await t.a.moves.release(t.instanceUid);
    await t.b.moves.closeDisks(t.instanceUid);
    await t.b.moves.closeDisks(t.instanceUid);
    await expectRuns(t.b, arrival.plan);
    await expectNoTrace(t.b, arrival.plan);
  });
});
