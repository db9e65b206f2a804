/** Two nodes on one machine, and a guest that moves between them. */
import { randomBytes, randomUUID } from "node:crypto";
import { chown, mkdir, readdir, stat, truncate, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "vitest";
import { checkLog, type LogReport } from "../../../hack/guest/check-log.ts";
import { silentLogger } from "../../../kube/logger.ts";
import type { MachineDisk, MachinePlan } from "../../../node-agent/instance/driver.ts";
import type { MoveEvent, MoveSecret, Offer, OutgoingPlan } from "../../../node-agent/instance/move.ts";
import { QemuDriver } from "../../../node-agent/instance/qemu/driver.ts";
import type { QemuMoves } from "../../../node-agent/instance/qemu/move/moves.ts";
import { makeMachine, type GuestKind, type Machine } from "./machine.ts";
import { signal, WAIT } from "./fixture.ts";
import { inGuest } from "./in-guest.ts";
import { freeMonitor } from "./monitor.ts";

export const ADDRESS = "127.0.0.1";
const FIRST_PORT = 20_000 + (process.pid % 100) * 64;
/** Below those that the kernel gives to whoever connects, and others for each process: a test takes nearly all of them. */
export const PORTS = [FIRST_PORT, FIRST_PORT + 63] as const;

/** One of the two. */
export interface Node {
  machine: Machine;
  driver: QemuDriver;
  moves: QemuMoves;
}

export interface MoveOptions {
  kind?: GuestKind;
  memoryMib?: number;
  /** Sizes of further disks, MiB. */
  moreDisks?: number[];
}

export interface MoveTest {
  readonly a: Node;
  readonly b: Node;
  readonly instanceUid: string;
  /** Starts the guest on `a`. */
  start(options?: MoveOptions): Promise<MachinePlan>;
  /** Makes the node ready for it (empty volumes) and lets it receive. */
  receive(node: Node, plan: MachinePlan, options?: { secret?: MoveSecret | undefined; streams?: number }): Promise<Arrival>;
  /** What the source is told of it. */
  outgoing(arrival: Arrival, plan: MachinePlan, options?: Partial<OutgoingPlan>): OutgoingPlan;
  /** The whole of it; gives the plan at the target. */
  move(from: Node, to: Node, plan: MachinePlan, options?: Partial<OutgoingPlan> & { streams?: number }): Promise<MachinePlan>;
  /** Ends the guest at the node that it has left, and its volumes there. */
  leave(node: Node): Promise<void>;
  events(node: Node): MoveEvent[];
  /** Waits until the source has begun more than so many passes over the guest's memory. */
  rounds(more: number): Promise<void>;
  /** The agents end, and others take their place. */
  replaceAgents(): Promise<void>;
}

export interface Arrival {
  offer: Offer;
  plan: MachinePlan;
  secret: MoveSecret | undefined;
}

export const newSecret = (): MoveSecret => ({ identity: "move-1", key: randomBytes(32).toString("hex") });

/** Registers the hooks. A guest for each test; or one for all of a file's, which outlives whatever is done to its moves. */
export function useMoves(scope: "test" | "file" = "test"): MoveTest {
  const machines: Machine[] = [];
  let nodes: Node[] = [];
  let instanceUid = "";

  beforeAll(async () => {
    process.env["DROVER_NODE_PID"] = String(process.pid);
    machines.push(await makeMachine("a"), await makeMachine("b"));
    if (scope === "file") begin();
  }, 300_000);
  afterAll(async () => {
    if (scope === "file") await end();
    for (const machine of machines) await machine.remove();
  });
  if (scope === "test") {
    beforeEach(() => begin());
    afterEach(() => end());
  }

  function begin(): void {
    instanceUid = randomUUID();
    nodes = newNodes();
  }

  async function end(): Promise<void> {
    for (const { machine, driver } of nodes) {
      for (const uid of await driver.list()) {
        await driver.stop(uid, { mode: "force", deadlineMs: 0 }, signal);
        await driver.forget(uid);
      }
      await driver.close();
      expect(await machine.processes()).toEqual([]);
      expect(await readdir(machine.paths.instances)).toEqual([]);
    }
  }

  const newNodes = (): Node[] =>
    machines.map((machine) => {
      const driver = new QemuDriver({ paths: machine.paths, log: silentLogger, cgroups: machine.cgroups });
      return { machine, driver, moves: driver.moves };
    });

  const node = (index: number): Node => {
    const found = nodes[index];
    if (!found) throw new Error("no such node");
    return found;
  };

  async function start(options: MoveOptions = {}): Promise<MachinePlan> {
    const { kind = "LINUX-LOG", memoryMib = 192, moreDisks = [] } = options;
    const { machine, driver } = node(0);
    const owner = await driver.prepare({ instanceUid, namespace: "test", name: "guest" });
    const made = await machine.plan(kind, { instanceUid, owner, memoryMib });
    const more = moreDisks.map((_, index) => diskOn(machine, `data${index}`));
    for (const [index, disk] of more.entries()) await emptyVolume(disk, (moreDisks[index] ?? 1) * 2 ** 20, owner);
    const plan = { ...made, disks: [...made.disks, ...more], claimUid: await machine.pod() };
    await driver.start(plan, signal);
    if (kind === "LINUX-LOG") {
      await expect.poll(() => driver.consoleTail(instanceUid, 100_000), { ...WAIT, timeout: 60_000 }).toContain("GUEST ready");
    }
    return plan;
  }

  const diskOn = (machine: Machine, id: string): MachineDisk => ({
    id,
    pool: "p1",
    path: join(machine.paths.volumes("p1", instanceUid), `${id}.raw`),
  });

  async function receive(
    at: Node,
    plan: MachinePlan,
    options: { secret?: MoveSecret | undefined; streams?: number } = {},
  ): Promise<Arrival> {
    const { secret, streams = 0 } = options;
    const { machine, driver } = at;
    const identity = await driver.prepare({ instanceUid, namespace: "test", name: "guest" });
    const disks = plan.disks.map(({ id }) => diskOn(machine, id));
    for (const [index, disk] of disks.entries()) await emptyVolume(disk, await sizeOf(plan.disks[index]), identity);
    const wanted = { ...plan, identity, disks, claimUid: await machine.pod() };
    const copy = await copyOf(plan);
    const incoming = { machine: wanted, copy, address: ADDRESS, ports: PORTS, secret, streams };
    return { offer: await at.moves.receive(incoming, signal), plan: wanted, secret };
  }

  const outgoing = ({ offer, secret }: Arrival, plan: MachinePlan, options: Partial<OutgoingPlan> = {}): OutgoingPlan => ({
    offer,
    secret,
    copy: plan.disks.map(({ id }) => ({ disk: id, sizeBytes: 0 })),
    maxBytesPerSecond: undefined,
    mayThrottle: false,
    ...options,
  });

  async function move(
    from: Node,
    to: Node,
    plan: MachinePlan,
    options: Partial<OutgoingPlan> & { streams?: number } = {},
  ): Promise<MachinePlan> {
    const { streams = 0, ...rest } = options;
    const arrival = await receive(to, plan, { secret: rest.secret, streams });
    const out = outgoing(arrival, plan, rest);
    await from.moves.copyDisks(instanceUid, out, signal);
    await from.moves.copyMemory(instanceUid, out, signal);
    await from.moves.allowPause(instanceUid, 2_000);
    await from.moves.finish(instanceUid, signal);
    await to.moves.resume(instanceUid);
    await from.moves.release(instanceUid);
    await to.moves.closeDisks(instanceUid);
    return arrival.plan;
  }

  async function leave({ driver }: Node): Promise<void> {
    await driver.stop(instanceUid, { mode: "force", deadlineMs: 0 }, signal);
    await driver.forget(instanceUid);
  }

  return {
    get a() {
      return node(0);
    },
    get b() {
      return node(1);
    },
    get instanceUid() {
      return instanceUid;
    },
    rounds: (more) =>
      expect.poll(async () => (await node(0).moves.counters(instanceUid)).memory.rounds, WAIT).toBeGreaterThan(more),
    async replaceAgents() {
      for (const { driver } of nodes) await driver.close();
      // one that really dies writes no more; this one may be in the middle of it
      await new Promise((resolve) => setTimeout(resolve, 200));
      nodes = newNodes();
    },
    start,
    receive,
    outgoing,
    move,
    leave,
    events({ moves }) {
      const seen: MoveEvent[] = [];
      moves.onMove(instanceUid, (event) => seen.push(event));
      return seen;
    },
  };
}

async function emptyVolume(disk: MachineDisk, bytes: number, owner: { uid: number; gid: number }): Promise<void> {
  await mkdir(dirname(disk.path), { recursive: true });
  await writeFile(disk.path, "");
  await truncate(disk.path, bytes);
  await chown(disk.path, owner.uid, owner.gid);
}

async function sizeOf(disk: MachineDisk | undefined): Promise<number> {
  return disk ? (await stat(disk.path)).size : 0;
}

const copyOf = (plan: MachinePlan): Promise<{ disk: string; sizeBytes: number }[]> =>
  Promise.all(plan.disks.map(async (disk) => ({ disk: disk.id, sizeBytes: await sizeOf(disk) })));

/** Lets the guest write into `mib` MiB of its memory, at MiB/s. */
export const dirty = (node: Node, instanceUid: string, rate: number, mib: number): Promise<void> =>
  inGuest(
    node.machine.paths.instanceVm(instanceUid),
    "/bin/wget",
    "-q",
    "-O",
    "/dev/null",
    `http://127.0.0.1/dirty/${rate}/${mib}`,
  );

export const logOf = (plan: MachinePlan): Promise<LogReport> => checkLog(plan.disks[0]?.path ?? "");

/** The guest runs here and writes on. */
export async function expectRuns(node: Node, plan: MachinePlan): Promise<void> {
  expect(await node.driver.observe(plan.instanceUid)).toMatchObject({ state: "running", runState: "running" });
  const { records } = await logOf(plan);
  await expect.poll(async () => (await logOf(plan)).records, WAIT).toBeGreaterThan(records + 3);
  expect(await logOf(plan)).toMatchObject({ hole: false });
}

/** Nothing of a move is left in the guest's QEMU. */
export async function expectNoTrace(node: Node, plan: MachinePlan): Promise<void> {
  const { instanceUid } = plan;
  const text = async (command: string, args = {}): Promise<string> => JSON.stringify(await ask(node, instanceUid, command, args));
  expect(await text("query-block-jobs")).toBe("[]");
  expect(await text("query-block-exports")).toBe("[]");
  expect(await text("query-named-block-nodes", { flat: true })).not.toContain("move-");
  expect(await text("qom-list", { path: "/objects" })).not.toContain("move-");
  expect(await text("query-migrate-parameters")).toContain('"tls-creds":""');
  const directory = await readdir(node.machine.paths.instanceVm(instanceUid));
  expect(directory.toSorted()).toEqual(["console.log", "qga", "qmp", "qmp2"]);
}

/** Descriptors of the guest's QEMU. */
export async function countOpen(node: Node, instanceUid: string): Promise<number> {
  const { pid } = await node.driver.observe(instanceUid);
  return (await readdir(`/proc/${pid}/fd`)).length;
}

/** Asks the guest's QEMU at this node, beside the driver. */
export async function ask({ machine }: Node, instanceUid: string, command: string, args = {}): Promise<unknown> {
  const qmp = await freeMonitor(machine.paths.instanceVm(instanceUid));
  try {
    return await qmp.execute(command, args);
  } finally {
    qmp.close();
  }
}
