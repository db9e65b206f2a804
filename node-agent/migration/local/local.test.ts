/** The executor, with agents that die at each of its steps: QEMU and volumes are stand-ins, the notes are real files. */
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Handover, Migration } from "../../../crds/migration.ts";
import { realClock } from "../../../kube/index.ts";
import { silentLogger } from "../../../kube/logger.ts";
import { instance } from "../../instance/fixtures.ts";
import type { PoolMoveDriver, PoolMoveState } from "../../instance/pool-move.ts";
import { nodePaths } from "../../node.ts";
import type { LocalStep } from "../checkpoint.ts";
import { MoveMetrics } from "../metrics.ts";
import { MoveNotes, type MoveNote } from "../notes.ts";
import { Records } from "../records.ts";
import type { Said } from "../report.ts";
import { goesOf } from "./goes.ts";
import { LocalMove, type LocalParts } from "./local.ts";

const UID = "11111111-2222-3333-4444-555555555555";
const GOES = { disk: "root", sizeBytes: 4096, from: "local", to: "fast", claimUid: "c2" };
const NOTE: MoveNote = {
  migration: { namespace: "default", name: "m", uid: "m1" },
  instance: { namespace: "default", name: "web", uid: UID },
  attempt: 1,
  role: "local",
  mark: "none",
  since: Date.now(),
  nics: [],
  goes: GOES,
};

/** All that outlives an agent. */
class Node {
  qemu: PoolMoveState = "old";
  record: Handover = { attempt: 1, state: "Copying" };
  claim = "c1";
  readonly volumes = new Set(["local", "fast"]);
  readonly done: string[] = [];
  readonly said: Said[] = [];
  readonly root: string;
  fails: string | undefined;
  told = true;

  constructor(root: string) {
    this.root = root;
    this.volumes.delete("fast");
  }

  /** What is done, with what the note says at that moment. */
  async log(what: string): Promise<void> {
    const files = await readdir(join(this.root, "moves"));
    const text = files.length === 0 ? "{}" : await readFile(join(this.root, "moves", files[0] ?? ""), "utf8");
    this.done.push(`${what} (${(JSON.parse(text) as Partial<MoveNote>).mark ?? "no note"})`);
  }

  readonly disks: PoolMoveDriver = {
    state: () => Promise.resolve(this.qemu),
    copy: () => this.step("copy", ["old", "copying", "ready"], "ready"),
    complete: () => this.step("complete", ["ready", "pending"], "pending"),
    pivot: () => this.step("pivot", ["pending"], "new"),
    settle: async () => {
      await this.log("settle");
      this.claim = GOES.claimUid;
    },
    giveUp: async () => {
      await this.log("giveUp");
      if (this.qemu !== "gone" && this.qemu !== "new") this.qemu = "old";
    },
    forget: () => undefined,
    counters: () => Promise.resolve({ doneBytes: 0, totalBytes: 0 }),
  };

  async step(what: string, from: PoolMoveState[], to: PoolMoveState): Promise<void> {
    await this.log(what);
    if (this.fails === what) throw new Error(`${what} failed`);
    if (from.includes(this.qemu)) this.qemu = to;
  }

  migration(more: Partial<Migration["spec"]> = {}): Migration {
    return {
      apiVersion: "drover.dev/v1alpha1",
      kind: "Migration",
      metadata: { name: "m", namespace: "default", uid: "m1", resourceVersion: "1", generation: 1, creationTimestamp: "" },
      spec: { instance: "web", mode: "Live", ...more },
      status: { instanceUid: UID, sourceNode: "n1", targetNode: "n1", handover: this.record },
    };
  }
}

class Died extends Error {}

/** One life of an agent; resolves with true when the move is over, false when the agent died at that step. */
async function life(
  node: Node,
  dieAt: LocalStep | undefined,
  spec: Partial<Migration["spec"]> = {},
  end = new AbortController(),
): Promise<boolean> {
  const notes = new MoveNotes(nodePaths(node.root));
  await notes.load();
  const note = notes.get(UID);
  if (note === undefined) return true;
  const death = Promise.withResolvers<never>();
  death.promise.catch(() => undefined);
  const alive = (): void => {
    if (end.signal.aborted) throw new Died();
  };
  const parts = {
    client: {
      get: () => Promise.resolve(instance({ metadata: { uid: UID } })),
      patchJson: (_: unknown, __: unknown, ops: { op: string; value: Handover }[]) => {
        alive();
        const [, test, replace] = ops;
        if (JSON.stringify(test?.value) === JSON.stringify(node.record) && replace !== undefined) node.record = replace.value;
        node.done.push(`record ${node.record.state}`);
        return Promise.resolve(node.migration());
      },
    },
    driver: { prepare: () => Promise.resolve({ uid: 1, gid: 1 }) },
    moves: { onMove: () => () => undefined },
    pools: {
      ensureVolume: ({ pool, sizeBytes }: { pool: string; sizeBytes: number }) => {
        node.volumes.add(pool);
        return Promise.resolve({ path: "", sizeBytes });
      },
      removeVolume: async ({ pool }: { pool: string }) => {
        alive();
        await node.log(`remove ${pool}`);
        node.volumes.delete(pool);
      },
    },
    notes,
    records: new Records(),
    reporter: { say: (_: unknown, said: Said) => void node.said.push(said), last: () => undefined },
    checkpoint: (_: string, step: LocalStep) => {
      alive();
      if (step !== dieAt) return;
      end.abort();
      death.reject(new Died());
      throw new Died();
    },
    metrics: new MoveMetrics(),
    clock: realClock,
    log: silentLogger,
    disks: node.disks,
    paths: nodePaths(node.root),
    hostFacts: () => Promise.resolve({ runtimeVersion: "r" }),
    isTold: () => node.told,
  } as unknown as LocalParts;
  const move = new LocalMove(parts, note, node.migration(spec));
  try {
    return await Promise.race([move.run(end.signal), death.promise]);
  } catch (error) {
    if (!(error instanceof Died)) throw error;
    end.abort();
    return false;
  }
}

let root: string;
let node: Node;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "drover-local-"));
  node = new Node(root);
  await new MoveNotes(nodePaths(root)).write(NOTE);
});
afterEach(() => rm(root, { recursive: true, force: true }));

const words = (role: "source" | "target"): string[] => [
  ...new Set(node.said.filter((one) => one.role === role).map(({ words: { state } }) => state)),
];

describe("a disk's way to another pool", () => {
  it("goes step by step, and each promise is noted before it is kept", async () => {
    expect(await life(node, undefined)).toBe(true);
    expect(node.done).toEqual([
      "copy (none)",
      "record Handover",
      "complete (none)",
      "pivot (Pivoting)",
      "settle (Pivoting)",
      "record Done",
      "remove local (Pivoting)",
    ]);
    expect(node).toMatchObject({ qemu: "new", claim: "c2", volumes: new Set(["fast"]) });
    expect(words("source")).toEqual(["CopyingDisk", "SwitchingOver", "Released"]);
    expect(words("target")).toEqual(["Preparing", "Ready", "Running"]);
    expect(await readdir(join(root, "moves"))).toEqual([]);
  });

  it.each<LocalStep>(["copy-disks", "write-handover", "complete", "note", "pivot", "settle", "write-done", "release"])(
    "comes to the same end when its agent dies before %s",
    async (step) => {
      expect(await life(node, step)).toBe(false);
      const before = node.done.length;
      expect(await life(node, undefined)).toBe(true);
      expect(node.done.length).toBeGreaterThan(before);
      expect(node).toMatchObject({ qemu: "new", claim: "c2", volumes: new Set(["fast"]), record: { state: "Done" } });
      expect(node.done.filter((one) => /^(complete|pivot)/.test(one)).every((one) => !one.includes("GivingUp"))).toBe(true);
    },
  );

  it.each<[LocalStep, string]>([
    ["copy-disks", "local"],
    ["write-handover", "local"],
    ["complete", "local"],
    ["note", "local"],
    ["pivot", "fast"],
    ["settle", "fast"],
    ["write-done", "fast"],
  ])("when agent and QEMU die before %s, pool %s has the disk", async (step, pool) => {
    expect(await life(node, step)).toBe(false);
    node.qemu = "gone";
    expect(await life(node, undefined)).toBe(true);
    expect(node.volumes).toEqual(new Set([pool]));
    expect(node.record.state).toBe(pool === "fast" ? "Done" : "Source");
    const givenUp = { state: "GivenUp", reason: "GuestEnded", retryable: true };
    expect(node.said.at(-1)?.words).toMatchObject(pool === "local" ? givenUp : { state: "Released" });
  });

  it.each<[string, (node: Node) => Partial<Migration["spec"]>, object]>([
    ["is cancelled", () => ({ cancel: true }), { reason: "Cancelled", retryable: false }],
    ["cannot be copied", (one) => ((one.fails = "copy"), {}), { reason: "DiskCopyFailed", retryable: true }],
    ["cannot be brought in step", (one) => ((one.fails = "complete"), {}), { reason: "DiskCopyFailed", retryable: true }],
    ["is given up by the operator", (one) => ((one.record = { attempt: 1, state: "Source" }), {}), {}],
  ])("stays where it is when it %s, and nothing else is left", async (_, how, why) => {
    expect(await life(node, undefined, how(node))).toBe(true);
    expect(node).toMatchObject({ qemu: "old", claim: "c1", volumes: new Set(["local"]), record: { state: "Source" } });
    expect(node.said.at(-1)).toMatchObject({ role: "source", words: { state: "GivenUp", ...why } });
    expect(await readdir(join(root, "moves"))).toEqual([]);
  });

  it("keeps its note until the instance says where the disk is", async () => {
    node.told = false;
    const end = new AbortController();
    const over = life(node, undefined, {}, end);
    await expect.poll(() => words("source"), { timeout: 9_000 }).toContain("Released");
    end.abort();
    expect(await over).toBe(false);
    expect((await readdir(join(root, "moves"))).length).toBe(1);
    node.told = true;
    expect(await life(node, undefined)).toBe(true);
    expect(await readdir(join(root, "moves"))).toEqual([]);
  });
});

describe("which disk goes", () => {
  const of = (...disks: [string, string, boolean][]) =>
    goesOf({
      ...new Node("").migration(),
      status: {
        targetClaim: { name: "c", uid: "c2" },
        disks: disks.map(([name, targetPool, copy]) => ({ name, sourcePool: "local", targetPool, sizeBytes: 4096, copy })),
      },
    });
  it("is the only one that is copied", () => expect(of(["root", "fast", true], ["data", "local", false])).toEqual(GOES));
  it("is none where several are, or none changes its pool", () =>
    expect([of(["root", "fast", true], ["data", "fast", true]), of(["root", "local", true]), of()]).toEqual([
      undefined,
      undefined,
      undefined,
    ]));
});
