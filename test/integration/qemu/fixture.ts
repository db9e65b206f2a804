/** What the tests of the QEMU driver share: a machine for each file, a driver and an instance for each test. */
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "vitest";
import { silentLogger } from "../../../kube/logger.ts";
import type { MachinePlan, Observed } from "../../../node-agent/instance/driver.ts";
import { QemuDriver } from "../../../node-agent/instance/qemu/driver.ts";
import { cannotRunGuests, makeMachine, type GuestKind, type Machine } from "./machine.ts";

export const unable = await cannotRunGuests();
/** For the title of a suite: why it is skipped. */
export const skipped = unable === undefined ? "" : ` (skipped: ${unable})`;
export const signal = AbortSignal.timeout(600_000);
export const WAIT = { timeout: 20_000, interval: 20 };

export interface Guests {
  readonly machine: Machine;
  readonly driver: QemuDriver;
  readonly instanceUid: string;
  newDriver(): QemuDriver;
  /** Plan of a guest in a claim of its own; limit of the claim in MiB. */
  plan(kind: GuestKind, options?: GuestOptions): Promise<MachinePlan>;
  start(kind: GuestKind, options?: GuestOptions): Promise<{ pid: number; wanted: MachinePlan }>;
  /** Waits until the guest has said something. */
  booted(): Promise<void>;
  /** Waits, by events alone, until the driver sees this state. */
  until(state: Observed["state"], by?: QemuDriver): Promise<Observed>;
  /** An agent in a process of its own starts the guest and is killed. Gives QEMU's pid. */
  startedByKilledAgent(wanted: MachinePlan): Promise<number>;
}

export interface GuestOptions {
  memoryMib?: number;
  limitMib?: number;
}

/** Registers the hooks; after each test nothing may be left. `trace` as of QemuDriver. */
export function useGuests(trace: readonly string[] = []): Guests {
  let machine: Machine;
  let driver: QemuDriver;
  let instanceUid: string;

  beforeAll(async () => {
    process.env["DROVER_NODE_PID"] = String(process.pid);
    machine = await makeMachine();
  }, 300_000);
  afterAll(() => machine.remove());

  const newDriver = (): QemuDriver =>
    new QemuDriver({ paths: machine.paths, log: silentLogger, cgroups: machine.cgroups, trace });

  beforeEach(() => {
    driver = newDriver();
    instanceUid = randomUUID();
  });
  afterEach(async () => {
    for (const uid of await driver.list()) {
      await driver.stop(uid, { mode: "force", deadlineMs: 0 }, signal);
      await driver.forget(uid);
    }
    await driver.close();
    await expectNothingLeft();
  });

  async function expectNothingLeft(): Promise<void> {
    expect(await machine.processes()).toEqual([]);
    expect(await readdir(machine.paths.instances)).toEqual([]);
  }

  async function plan(kind: GuestKind, options: GuestOptions = {}): Promise<MachinePlan> {
    const owner = await driver.prepare({ instanceUid, namespace: "test", name: "guest" });
    const made = await machine.plan(kind, {
      instanceUid,
      owner,
      ...(options.memoryMib === undefined ? {} : { memoryMib: options.memoryMib }),
    });
    return { ...made, claimUid: await machine.pod(options.limitMib) };
  }

  async function start(kind: GuestKind, options?: GuestOptions): Promise<{ pid: number; wanted: MachinePlan }> {
    const wanted = await plan(kind, options);
    return { wanted, ...(await driver.start(wanted, signal)) };
  }

  const booted = (): Promise<void> => expect.poll(() => driver.consoleTail(instanceUid, 1000), WAIT).toContain("GUEST");

  async function until(state: Observed["state"], by: QemuDriver = driver): Promise<Observed> {
    let seen = await by.observe(instanceUid);
    const deadline = AbortSignal.timeout(20_000);
    while (seen.state !== state && !deadline.aborted) {
      await new Promise<void>((resolve) => {
        const unwatch = by.watch(instanceUid, done);
        deadline.addEventListener("abort", done);
        function done(): void {
          unwatch();
          deadline.removeEventListener("abort", done);
          resolve();
        }
      });
      seen = await by.observe(instanceUid);
    }
    expect(seen.state).toBe(state);
    return seen;
  }

  async function startedByKilledAgent(wanted: MachinePlan): Promise<number> {
    const task = {
      root: machine.paths.root,
      runtimes: join(machine.paths.runtime("x"), ".."),
      cgroups: machine.cgroups,
      plan: wanted,
    };
    const agent = spawn(process.execPath, [new URL("agent.ts", import.meta.url).pathname], {
      env: { ...process.env, AGENT_TASK: JSON.stringify(task) },
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [line] = (await once(agent.stdout, "data")) as [Buffer];
    agent.kill("SIGKILL");
    await once(agent, "exit");
    return Number(line.toString());
  }

  return {
    get machine() {
      return machine;
    },
    get driver() {
      return driver;
    },
    get instanceUid() {
      return instanceUid;
    },
    newDriver,
    plan,
    start,
    booted,
    until,
    startedByKilledAgent,
  };
}
