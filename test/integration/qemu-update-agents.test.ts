/** Real QEMU under TCG, and the agent's own move: it dies right before each of its steps, and the next one goes on from notes and processes. */
import { mkdir, open, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { describe, expect, onTestFinished, test } from "vitest";
import type { Handover, Migration } from "../../crds/migration.ts";
import { realClock } from "../../kube/index.ts";
import { silentLogger } from "../../kube/logger.ts";
import type { MachinePlan } from "../../node-agent/instance/driver.ts";
import { instance } from "../../node-agent/instance/fixtures.ts";
import type { QemuDriver } from "../../node-agent/instance/qemu/driver.ts";
import type { UpdateStep } from "../../node-agent/migration/checkpoint.ts";
import { UpdateMove, type UpdateParts } from "../../node-agent/migration/in-place/update.ts";
import { MoveMetrics } from "../../node-agent/migration/metrics.ts";
import { MoveNotes } from "../../node-agent/migration/notes.ts";
import { Records } from "../../node-agent/migration/records.ts";
import type { Said } from "../../node-agent/migration/report.ts";
import { skipped, unable, WAIT } from "./qemu/fixture.ts";
import { OTHER_RUNTIME, RUNTIME } from "./qemu/machine.ts";
import { useUpdates } from "./qemu/update-fixture.ts";

/** What happens in the life of an agent. */
interface Life {
  spec?: Partial<Migration["spec"]>;
  /** Called before each step. */
  meanwhile?: (step: UpdateStep) => Promise<void>;
  /** Called with the words of each error that it logs. */
  failed?: (what: string) => void;
}
const silent = (): void => undefined;

/** A file system of its own there until the test is over. Gives a function that fills it, and one that empties it again. */
async function smallDisk(directory: string): Promise<{ fill: () => Promise<void>; free: () => Promise<void> }> {
  await mkdir(directory, { recursive: true });
  await execa("mount", ["-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", directory]);
  onTestFinished(async () => void (await execa("umount", ["--lazy", directory])));
  const filler = join(directory, ".filler");
  const fill = async (): Promise<void> => {
    const file = await open(filler, "w");
    try {
      for (;;) await file.write(Buffer.alloc(4096));
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "ENOSPC")) throw error;
    } finally {
      await file.close();
    }
  };
  return { fill, free: () => rm(filler, { force: true }) };
}

const STEPS: UpdateStep[] = ["prepare", "write-handover", "switch", "note", "run", "write-done", "release"];

describe.skipIf(unable !== undefined)(`agents that die while a guest gets another QEMU${skipped}`, () => {
  const u = useUpdates();
  const said: Said[] = [];
  let record: Handover = { attempt: 1, state: "Copying" };

  const migration = (spec: Partial<Migration["spec"]> = {}): Migration => ({
    apiVersion: "drover.dev/v1alpha1",
    kind: "Migration",
    metadata: { name: "m", namespace: "test", uid: "m1", resourceVersion: "1", generation: 1, creationTimestamp: "" },
    spec: { instance: "guest", mode: "InPlace", ...spec },
    status: {
      instanceUid: u.guests.instanceUid,
      sourceNode: "n1",
      targetNode: "n1",
      handover: record,
      policy: { maxPauseMs: 3_000, onStall: "Abort", timeoutMs: 600_000, tls: true },
    },
  });

  const notes = async (): Promise<MoveNotes> => {
    const found = new MoveNotes(u.guests.machine.paths);
    await found.load();
    return found;
  };

  async function begin(runtime: string): Promise<void> {
    record = { attempt: 1, state: "Copying" };
    said.splice(0);
    await (await notes()).write({
      migration: { namespace: "test", name: "m", uid: "m1" },
      instance: { namespace: "test", name: "guest", uid: u.guests.instanceUid },
      attempt: 1,
      role: "update",
      mark: "none",
      since: Date.now(),
      nics: [],
      runtime,
    });
  }

  /** One life of an agent; true: the move is over, false: it has died before that step, and does nothing more. */
  async function life(
    wanted: MachinePlan,
    driver: QemuDriver,
    dieAt: UpdateStep | undefined,
    { spec = {}, meanwhile = () => Promise.resolve(), failed = () => undefined }: Life = {},
  ): Promise<boolean> {
    const own = await notes();
    const note = own.get(u.guests.instanceUid);
    if (note === undefined) return true;
    const death = Promise.withResolvers<boolean>();
    const end = new AbortController();
    const web = instance({ metadata: { uid: u.guests.instanceUid, name: "guest", namespace: "test" } });
    const parts = {
      client: {
        get: () =>
          Promise.resolve({
            ...web,
            spec: {
              ...web.spec,
              cpu: wanted.cpus,
              memory: String(wanted.memoryBytes),
              nics: [],
              rootDisk: { pool: "p1", size: "1Gi" },
            },
            status: { guest: { state: "Running", machineType: wanted.machineType } },
          }),
        patchJson: (_: unknown, __: unknown, ops: { op: string; value: Handover }[]) => {
          const [, expected, replace] = ops;
          if (JSON.stringify(expected?.value) === JSON.stringify(record) && replace !== undefined) record = replace.value;
          return Promise.resolve(migration(spec));
        },
      },
      driver,
      moves: {},
      pools: { place: (pool: string) => Promise.resolve({ volumes: join(u.guests.machine.paths.pool(pool), "volumes") }) },
      notes: own,
      records: new Records(),
      reporter: { say: (_: unknown, one: Said) => void said.push(one), last: () => undefined, hold: () => undefined },
      checkpoint: (_: string, step: UpdateStep) => {
        if (step !== dieAt) return meanwhile(step);
        death.resolve(false);
        end.abort(); // what is not on its way is not begun any more; what is never goes on
        return new Promise(() => undefined);
      },
      metrics: new MoveMetrics(),
      clock: realClock,
      log: { ...silentLogger, debug: silent, info: silent, warn: silent, error: (_: unknown, what: string) => failed(what) },
      updates: driver.updates,
      runtimeFacts: () => Promise.resolve({ qemuVersion: "10.0.2", machineTypes: ["pc-q35-10.0"] }),
      maxPauseMs: 1_000,
    } as unknown as UpdateParts;
    return Promise.race([new UpdateMove(parts, note, migration(spec)).run(end.signal), death.promise]);
  }

  /** What is true of the guest once a move of it is over, as the agent `by` sees it. */
  async function after(
    wanted: MachinePlan,
    by: QemuDriver,
    step: string,
  ): Promise<{ pid: number; runtime: string; record: string }> {
    const seen = await by.observe(u.guests.instanceUid);
    expect([step, seen.state]).toEqual([step, "running"]);
    await u.expectRuns(wanted, by);
    await u.expectTidy(seen.pid, by);
    expect([step, await readdir(join(u.guests.machine.paths.root, "moves"))]).toEqual([step, []]);
    return { pid: seen.pid ?? 0, runtime: seen.note?.run?.runtimeVersion ?? "", record: record.state };
  }

  test("the guest has its new QEMU in the end, before whatever step they die", async () => {
    const { pid: first, wanted } = await u.started();
    let [agent, pid, from, to] = [u.guests.driver, first, RUNTIME, OTHER_RUNTIME];
    for (const step of [undefined, ...STEPS]) {
      await begin(to);
      expect([step, await life(wanted, agent, step)]).toEqual([step, step === undefined]);
      await agent.close();
      agent = u.guests.newDriver();
      expect([step, await life(wanted, agent, undefined)]).toEqual([step, true]);
      const now = await after(wanted, agent, String(step));
      expect([step, now.record, now.runtime, now.pid === pid]).toEqual([step, "Done", to, false]);
      expect(said.at(-1)?.words).toMatchObject({ state: "Released", progress: "100%" });
      [from, to, pid] = [to, from, now.pid];
    }
    await agent.close();
  });

  test("a disk that is full before the guest stands still: it keeps its QEMU, and gets another one when there is room", async () => {
    const moves = await smallDisk(join(u.guests.machine.paths.root, "moves"));
    const { pid, wanted } = await u.started();
    const agent = u.guests.driver;
    const full = Promise.withResolvers<string>();
    await begin(OTHER_RUNTIME);
    const meanwhile = (step: UpdateStep): Promise<void> => (step === "switch" ? moves.fill() : Promise.resolve());
    const over = life(wanted, agent, undefined, { meanwhile, failed: full.resolve });
    expect(await full.promise).toContain("note cannot be written");
    expect(await u.state()).toBe("ready");
    await u.expectRuns(wanted);
    await moves.free();
    expect(await over).toBe(true);
    const kept = await after(wanted, agent, "full");
    expect([kept.record, kept.pid]).toEqual(["Source", pid]);
    expect(said.at(-1)?.words).toMatchObject({ state: "GivenUp", retryable: true });
    await begin(OTHER_RUNTIME);
    expect(await life(wanted, agent, undefined)).toBe(true);
    expect((await after(wanted, agent, "free")).record).toBe("Done");
  });

  test("a disk that is full while the guest stands still: it runs in its new QEMU, and the rest follows when there is room", async () => {
    const { paths } = u.guests.machine;
    const disks = [await smallDisk(join(paths.root, "moves")), await smallDisk(paths.instances)];
    const { pid, wanted } = await u.started();
    const agent = u.guests.driver;
    await begin(OTHER_RUNTIME);
    const meanwhile = async (step: UpdateStep): Promise<void> => {
      if (step === "note") for (const disk of disks) await disk.fill();
    };
    const over = life(wanted, agent, undefined, { meanwhile });
    await expect.poll(() => record.state, WAIT).toBe("Done");
    expect(await u.state()).toBe("new");
    for (const disk of disks) await disk.free();
    expect(await over).toBe(true);
    const now = await after(wanted, agent, "full in the pause");
    expect([now.runtime, now.pid === pid]).toEqual([OTHER_RUNTIME, false]);
  });

  test("a cancel meanwhile: it keeps its QEMU, until the guest has stood still", async () => {
    const { pid: first, wanted } = await u.started();
    let [agent, pid] = [u.guests.driver, first];
    for (const step of ["prepare", "write-handover", "switch", "note"] as const) {
      await begin(OTHER_RUNTIME);
      expect([step, await life(wanted, agent, step)]).toEqual([step, false]);
      await agent.close();
      agent = u.guests.newDriver();
      expect([step, await life(wanted, agent, undefined, { spec: { cancel: true } })]).toEqual([step, true]);
      const now = await after(wanted, agent, step);
      expect([step, now.record, now.pid === pid]).toEqual(step === "note" ? [step, "Done", false] : [step, "Source", true]);
      pid = now.pid;
    }
    await agent.close();
  });
});
