/** Disks of an instance that does not run, from one node's storage to another's, by the real programs. Needs root. */
import { existsSync } from "node:fs";
import { chown, mkdir, mkdtemp, open, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { silentLogger } from "../../kube/index.ts";
import { ColdMoves } from "../../node-agent/migration/cold/cold.ts";
import { ColdPoolMoves } from "../../node-agent/migration/local/cold.ts";
import type { MoveEvent, OutgoingPlan } from "../../node-agent/instance/move.ts";
import type { Observed } from "../../node-agent/instance/driver.ts";
import { nodePaths } from "../../node-agent/node.ts";

const UID = "11111111-2222-3333-4444-555555555555";
const MIB = 1024 ** 2;
const SOURCE_USER = { uid: 2_000_001, gid: 2_000_001 };
const TARGET_USER = { uid: 2_000_002, gid: 2_000_002 };
const secret = { identity: "move-test-1", key: "ab".repeat(32) };
const never = new AbortController().signal;
const disks = [
  { disk: "root", sizeBytes: 64 * MIB },
  { disk: "data", sizeBytes: 8 * MIB },
];

let root: string;
let observed: Observed;
let moves: ColdMoves[];
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "drover-cold-"));
  observed = { state: "absent" };
  moves = [];
  for (const node of ["n1", "n2"]) {
    await mkdir(join(root, node, "volumes"), { recursive: true });
    const user = node === "n1" ? SOURCE_USER : TARGET_USER;
    for (const { disk, sizeBytes } of disks) {
      const handle = await open(volume(node, disk), "wx", 0o600);
      await handle.truncate(sizeBytes);
      if (node === "n1") {
        await handle.write(Buffer.alloc(3 * MIB, disk), 0, 3 * MIB, 1 * MIB);
        await handle.write(Buffer.from(`end of ${disk}`), 0, 8, sizeBytes - 512);
      }
      await handle.close();
      await chown(volume(node, disk), user.uid, user.gid);
    }
  }
});
afterEach(async () => {
  for (const one of moves) await one.close();
  await rm(root, { recursive: true, force: true });
});

const volume = (node: string, disk: string): string => join(root, node, "volumes", `${disk}.raw`);

/** The part of a node's agent that carries disks; another one of the same node is its successor. */
function agent(node: "n1" | "n2"): ColdMoves {
  const one = new ColdMoves({
    paths: nodePaths(join(root, node)),
    driver: { observe: () => Promise.resolve(observed) },
    disks: () => Promise.resolve({ identity: SOURCE_USER, pathOf: (disk) => volume(node, disk) }),
    log: silentLogger,
  });
  moves.push(one);
  return one;
}

const coldPlan = (key: typeof secret | undefined = secret) => ({
  machine: {
    instanceUid: UID,
    identity: TARGET_USER,
    disks: disks.map(({ disk }) => ({ id: disk, pool: "p", path: volume("n2", disk) })),
  },
  copy: disks,
  address: "127.0.0.1",
  ports: [49_300, 49_399] as const,
  secret: key,
});

async function outgoingPlan(target: ColdMoves, key: typeof secret | undefined = secret): Promise<OutgoingPlan> {
  const offer = await target.receive(coldPlan(key), never);
  return { offer, copy: disks, secret: key, maxBytesPerSecond: undefined, mayThrottle: false };
}

const compare = (disk: string) => execa("cmp", [volume("n1", disk), volume("n2", disk)], { reject: false });
const until = async (what: ColdMoves, state: string): Promise<void> => {
  if ((await what.incoming(UID)) === state) return;
  await new Promise<void>((resolve) => {
    const off = what.onMove(UID, () => void what.incoming(UID).then((now) => now === state && (off(), resolve())));
  });
};

it("arrive whole and sparse, and the target knows it by itself, also after its agent's end", async () => {
  const [source, target] = [agent("n1"), agent("n2")];
  const plan = await outgoingPlan(target);
  expect(await target.receive(coldPlan(), never), "repeated").toEqual(plan.offer);
  const told: MoveEvent["kind"][] = [];
  source.onMove(UID, ({ kind }) => told.push(kind));
  expect([await source.outgoing(UID), await target.incoming(UID)]).toEqual(["idle", "waiting"]);
  await source.copyDisks(UID, plan, never);
  expect((await source.counters(UID)).disk).toEqual({ doneBytes: 72 * MIB, totalBytes: 72 * MIB });
  await source.copyMemory(UID, plan);
  expect([await source.outgoing(UID), await target.incoming(UID)]).toEqual(["copying", "waiting"]);
  await expect(target.resume(UID)).rejects.toThrow("have not all arrived");
  await source.allowPause(UID);
  expect(await source.outgoing(UID)).toBe("held");

  // The source's next agent goes on from what the one before has noted.
  const next = agent("n1");
  await next.finish(UID, never);
  expect(await next.outgoing(UID)).toBe("complete");
  await until(target, "complete");
  for (const { disk } of disks) expect([disk, (await compare(disk)).exitCode]).toEqual([disk, 0]);
  expect((await stat(volume("n2", "root"))).blocks * 512, "holes stay holes").toBeLessThan(8 * MIB);
  expect(await stat(volume("n2", "root"))).toMatchObject(TARGET_USER);
  expect(told).toContain("held");

  const heir = agent("n2");
  expect(await heir.incoming(UID)).toBe("complete");
  await heir.resume(UID);
  expect(await agent("n2").incoming(UID)).toBe("running");
  await expect(heir.abandon(UID)).rejects.toThrow("this node's already");
  await heir.closeDisks(UID);
  await next.forget(UID);
  expect([await heir.incoming(UID), await next.outgoing(UID)]).toEqual(["gone", "idle"]);
  for (const node of ["n1", "n2"]) expect(existsSync(join(root, node, "cold", UID))).toBe(false);
});

it("are taken from nobody without the key", async () => {
  const [source, target] = [agent("n1"), agent("n2")];
  const plan = await outgoingPlan(target);
  const wrong = { ...plan, secret: { ...secret, key: "cd".repeat(32) } };
  await expect(source.copyDisks(UID, wrong, never)).rejects.toThrow(/TLS|handshake|certificate|PSK/i);
  await expect(source.copyDisks(UID, { ...plan, secret: undefined }, never)).rejects.toThrow(/TLS/i);
  expect(await readFile(volume("n2", "data"))).toEqual(Buffer.alloc(8 * MIB));
  await target.abandon(UID);
  expect(await target.incoming(UID)).toBe("gone");
});

it("are not sent while the guest runs; a copy that is given up leaves the disks as they were", async () => {
  const [source, target] = [agent("n1"), agent("n2")];
  const plan = await outgoingPlan(target, undefined);
  observed = { state: "running" };
  await expect(source.copyDisks(UID, plan, never)).rejects.toMatchObject({ reason: "InstanceRuns" });
  observed = { state: "exited" };
  const slow = source.copyDisks(UID, { ...plan, maxBytesPerSecond: MIB }, never);
  const [ended] = await Promise.all([Promise.allSettled([slow]), source.giveUp(UID)]);
  expect(ended[0].status).toBe("rejected");
  expect(await source.outgoing(UID)).toBe("idle");
  // Sent again, over what is there already.
  await writeFile(volume("n2", "data"), Buffer.alloc(4096, 1), { flag: "r+" });
  await source.copyDisks(UID, plan, never);
  for (const { disk } of disks) expect([disk, (await compare(disk)).exitCode]).toEqual([disk, 0]);
});

it("an agent that ends takes the programs with it: the move finds nobody who receives", async () => {
  const [source, target] = [agent("n1"), agent("n2")];
  const plan = await outgoingPlan(target);
  await target.close();
  expect(await agent("n2").incoming(UID)).toBe("gone");
  const error: Error = await source.copyDisks(UID, plan, never).then(
    () => new Error("copied"),
    (reason) => reason,
  );
  expect(error.message).toMatch(/refused|connect/i);
  // what the program misses in its root directory is nothing to whoever reads this
  expect(error.message).not.toContain("/dev/null");
  await agent("n2").abandon(UID);
});

describe("to another pool of the same node", () => {
  const plan = {
    disk: "root",
    sizeBytes: 64 * MIB,
    claimUid: "c2",
    maxBytesPerSecond: undefined as number | undefined,
    runtimeVersion: "",
  };
  const from = () => ({ pool: "p1", path: volume("n1", "root") });
  const to = () => ({ pool: "p2", path: volume("n2", "root") });
  const poolMoves = () =>
    new ColdPoolMoves({ driver: { observe: () => Promise.resolve(observed) }, identity: () => Promise.resolve(SOURCE_USER) });
  beforeEach(() => chown(volume("n2", "root"), SOURCE_USER.uid, SOURCE_USER.gid));

  it("a disk arrives whole and sparse, also over what an earlier try has left", async () => {
    const handle = await open(volume("n2", "root"), "r+");
    await handle.write(Buffer.alloc(5 * MIB, "left over"), 0, 5 * MIB, 20 * MIB);
    await handle.close();
    const one = poolMoves();
    const where = { ...plan, from: from(), to: to() };
    await one.copy(UID, where, never);
    expect(await one.state(UID)).toBe("ready");
    expect(await one.counters(UID)).toEqual({ doneBytes: 64 * MIB, totalBytes: 64 * MIB });
    expect((await compare("root")).exitCode).toBe(0);
    expect((await stat(volume("n2", "root"))).blocks * 512, "holes are holes").toBeLessThan(8 * MIB);
    await one.complete(UID);
    expect(await one.state(UID)).toBe("pending");
    expect(await poolMoves().state(UID), "the next agent's").toBe("old");
    one.forget(UID);
    expect(await one.state(UID)).toBe("old");
  });

  it("a disk is given up in the middle, and not begun for a guest that runs", async () => {
    const one = poolMoves();
    const where = { ...plan, from: from(), to: to(), maxBytesPerSecond: MIB };
    const copying = one.copy(UID, where, never);
    copying.catch(() => undefined);
    await expect.poll(() => one.state(UID), { timeout: 9_000 }).toBe("copying");
    await one.giveUp(UID);
    await expect(copying).rejects.toThrow("abort");
    expect(await one.state(UID)).toBe("old");
    await expect(one.complete(UID)).rejects.toThrow("has not been copied");
    observed = { state: "running" };
    await expect(one.copy(UID, where, never)).rejects.toThrow("the guest runs");
  });
});
