/** The executor, with agents that die at each of its steps: QEMUs are stand-ins, the notes are real files. */
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Handover, Migration } from "../../../crds/migration.ts";
import { realClock } from "../../../kube/index.ts";
import { silentLogger } from "../../../kube/logger.ts";
import { instance } from "../../instance/fixtures.ts";
import type { SwitchOptions, UpdateDriver, UpdateState } from "../../instance/update.ts";
import { nodePaths } from "../../node.ts";
import type { UpdateStep } from "../checkpoint.ts";
import { MoveMetrics } from "../metrics.ts";
import { MoveNotes, type MoveNote } from "../notes.ts";
import { Records } from "../records.ts";
import type { Said } from "../report.ts";
import type { RuntimeFacts } from "./machine.ts";
import { UpdateMove, type UpdateParts } from "./update.ts";

const UID = "11111111-2222-3333-4444-555555555555";
const NOTE: MoveNote = {
  migration: { namespace: "default", name: "m", uid: "m1" },
  instance: { namespace: "default", name: "web", uid: UID },
  attempt: 1,
  role: "update",
  mark: "none",
  since: Date.now(),
  nics: [],
  runtime: "r2",
};

const web = instance({ metadata: { uid: UID } });
const WEB = { ...web, status: { ...web.status, guest: { state: "Running", machineType: "pc-q35-10.0" } } };

/** All that outlives an agent. */
class Node {
  qemu: UpdateState = "old";
  record: Handover = { attempt: 1, state: "Copying" };
  facts: RuntimeFacts | undefined = { qemuVersion: "10.0.13", machineTypes: ["pc-q35-10.0"] };
  /** Only one QEMU is left, under its own names. */
  tidy = true;
  readonly done: string[] = [];
  readonly said: Said[] = [];
  readonly root: string;
  fails: string | undefined;

  constructor(root: string) {
    this.root = root;
  }

  /** What is done, with what the note says at that moment. */
  async log(what: string): Promise<void> {
    const files = (await readdir(join(this.root, "moves"))).filter((name) => name.endsWith(".json"));
    const text = files.length === 0 ? "{}" : await readFile(join(this.root, "moves", files[0] ?? ""), "utf8");
    this.done.push(`${what} (${(JSON.parse(text) as Partial<MoveNote>).mark ?? "no note"})`);
    if (this.fails === what) throw new Error(`${what} failed`);
  }

  readonly updates: UpdateDriver = {
    state: () => Promise.resolve(this.qemu),
    prepare: async () => {
      await this.log("prepare");
      this.tidy = false;
      this.qemu = "ready";
    },
    switchOver: async (_: string, { noted }: SwitchOptions) => {
      if (this.fails === "switch") this.qemu = "old";
      await this.log("switch");
      this.qemu = "held";
      await noted(() => {
        if (this.fails === "new one gone") throw new Error("the new one is gone");
      });
      await this.log("cont");
      this.qemu = "new";
    },
    run: async () => {
      await this.log("run");
      if (this.qemu === "held") this.qemu = "new";
    },
    finish: async () => {
      await this.log("finish");
      this.tidy = true;
    },
    giveUp: async () => {
      await this.log("giveUp");
      if (this.qemu !== "gone") this.qemu = "old";
      this.tidy = true;
    },
    isSwitching: () => false,
    marks: () =>
      this.qemu === "new"
        ? [
            { name: "stopped", at: 1_000 },
            { name: "resumed", at: 1_009.5 },
          ]
        : [],
    onUpdate: () => () => undefined,
  };

  migration(more: Partial<Migration["spec"]> = {}): Migration {
    return {
      apiVersion: "drover.dev/v1alpha1",
      kind: "Migration",
      metadata: { name: "m", namespace: "default", uid: "m1", resourceVersion: "1", generation: 1, creationTimestamp: "" },
      spec: { instance: "web", mode: "InPlace", ...more },
      status: { instanceUid: UID, sourceNode: "n1", targetNode: "n1", handover: this.record },
    };
  }
}

class Died extends Error {}

/** One life of an agent; resolves with true when the move is over, false when the agent died at that step. */
async function life(node: Node, dieAt: UpdateStep | undefined, spec: Partial<Migration["spec"]> = {}): Promise<boolean> {
  const notes = new MoveNotes(nodePaths(node.root));
  await notes.load();
  const note = notes.get(UID);
  if (note === undefined) return true;
  const end = new AbortController();
  const death = Promise.withResolvers<never>();
  death.promise.catch(() => undefined);
  const alive = (): void => {
    if (end.signal.aborted) throw new Died();
  };
  const parts = {
    client: {
      get: () => Promise.resolve(WEB),
      patchJson: (_: unknown, __: unknown, ops: { op: string; value: Handover }[]) => {
        alive();
        const [, test, replace] = ops;
        if (JSON.stringify(test?.value) === JSON.stringify(node.record) && replace !== undefined) node.record = replace.value;
        node.done.push(`record ${node.record.state}`);
        return Promise.resolve(node.migration());
      },
    },
    driver: {
      prepare: () => Promise.resolve({ uid: 1, gid: 1 }),
      pingGuestAgent: async () => (await node.log("ping"), true),
    },
    moves: {},
    pools: { place: () => Promise.resolve({ volumes: "/volumes" }) },
    notes,
    records: new Records(),
    reporter: { say: (_: unknown, said: Said) => void node.said.push(said), last: () => undefined, hold: () => undefined },
    checkpoint: (_: string, step: UpdateStep) => {
      alive();
      if (step !== dieAt) return;
      end.abort();
      death.reject(new Died());
      throw new Died();
    },
    metrics: new MoveMetrics(),
    clock: realClock,
    log: silentLogger,
    updates: node.updates,
    runtimeFacts: () => Promise.resolve(node.facts),
    maxPauseMs: 300,
  } as unknown as UpdateParts;
  const move = new UpdateMove(parts, note, node.migration(spec));
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
  root = await mkdtemp(join(tmpdir(), "drover-update-"));
  node = new Node(root);
  await new MoveNotes(nodePaths(root)).write(NOTE);
});
afterEach(() => rm(root, { recursive: true, force: true }));

const words = (role: "source" | "target"): string[] => [
  ...new Set(node.said.filter((one) => one.role === role).map(({ words: { state } }) => state)),
];

describe("a guest's way into another QEMU", () => {
  it("goes step by step: the promise is noted before it is kept, and the guest is left alone until it answers", async () => {
    expect(await life(node, undefined)).toBe(true);
    expect(node.done).toEqual([
      "prepare (none)",
      "record Handover",
      "switch (none)",
      "cont (Switched)",
      "ping (Switched)",
      "record Done",
      "finish (Switched)",
    ]);
    expect(node).toMatchObject({ qemu: "new", tidy: true });
    expect(words("source")).toEqual(["Waiting", "SwitchingOver", "Completed", "Released"]);
    expect(words("target")).toEqual(["Preparing", "Ready", "Running"]);
    const completed = node.said.find(({ words: { state } }) => state === "Completed");
    expect(completed?.words).toMatchObject({ pauseMs: 9.5, pause: "9.5ms", timeline: [{ mark: "stopped", ms: 0 }, {}] });
    expect(await readdir(join(root, "moves"))).toEqual([]);
  });

  it.each<UpdateStep>(["prepare", "write-handover", "switch", "note", "run", "write-done", "release"])(
    "comes to the same end when its agent dies before %s",
    async (step) => {
      expect(await life(node, step)).toBe(false);
      expect(await life(node, undefined)).toBe(true);
      expect(node).toMatchObject({ qemu: "new", tidy: true, record: { state: "Done" } });
      const [first] = node.done.filter((one) => /^(cont|run)/.test(one));
      expect(first).toMatch(/\(Switched\)$/);
      expect(await readdir(join(root, "moves"))).toEqual([]);
    },
  );

  it.each<[UpdateStep, string]>([
    ["prepare", "Source"],
    ["write-handover", "Source"],
    ["switch", "Source"],
    ["note", "Source"],
    ["run", "Done"],
    ["write-done", "Done"],
  ])("when agent and QEMUs die before %s, the record comes to say %s", async (step, state) => {
    expect(await life(node, step)).toBe(false);
    node.qemu = "gone";
    expect(await life(node, undefined)).toBe(true);
    expect(node.record.state).toBe(state);
    const ran = node.done.filter((one) => one.startsWith("cont") || one.startsWith("run"));
    expect(ran).toEqual(step === "write-done" ? ["cont (Switched)"] : []);
  });

  it("an agent that died in the guest's first moments leaves them to the next one: the guest agent is asked again", async () => {
    expect(await life(node, "write-done")).toBe(false);
    expect(node.done.filter((one) => one.startsWith("ping"))).toHaveLength(1);
    expect(await life(node, undefined)).toBe(true);
    expect(node.done.filter((one) => one.startsWith("ping"))).toHaveLength(2);
  });

  it("a new one that has died once it may have run is not taken for one that never ran", async () => {
    expect(await life(node, "write-done")).toBe(false);
    node.qemu = "old";
    expect(await life(node, undefined)).toBe(true);
    expect(node.record.state).toBe("Done");
    expect(node.done.at(-1)).toBe("finish (Switched)");
  });

  it.each<[string, (node: Node) => Partial<Migration["spec"]>, object]>([
    ["is cancelled", () => ({ cancel: true }), { reason: "Cancelled", retryable: false }],
    ["cannot be prepared", (one) => ((one.fails = "prepare"), {}), { reason: "UpdateFailed", retryable: true }],
    ["loses the new one right before the promise", (one) => ((one.fails = "new one gone"), {}), { reason: "UpdateFailed" }],
    ["cannot be handed over", (one) => ((one.fails = "switch"), {}), { reason: "UpdateFailed", retryable: true }],
    [
      "is to go to a runtime that is not there",
      (one) => ((one.facts = undefined), {}),
      { reason: "RuntimeMissing", retryable: false },
    ],
    [
      "is to go to a QEMU without its machine type",
      (one) => ((one.facts = { qemuVersion: "10.0.2", machineTypes: ["pc-q35-9.2"] }), {}),
      { reason: "MachineTypeUnknown", retryable: false },
    ],
    [
      "is to go to a QEMU that is too old",
      (one) => ((one.facts = { qemuVersion: "9.2.1", machineTypes: ["pc-q35-10.0"] }), {}),
      { reason: "QEMUTooOld", retryable: false },
    ],
    ["is given up by the operator", (one) => ((one.record = { attempt: 1, state: "Source" }), {}), {}],
  ])("keeps its QEMU when it %s, and nothing else is left", async (_, how, why) => {
    expect(await life(node, undefined, how(node))).toBe(true);
    expect(node).toMatchObject({ qemu: "old", tidy: true, record: { state: "Source" } });
    expect(node.said.at(-1)).toMatchObject({ role: "source", words: { state: "GivenUp", ...why } });
    expect(await readdir(join(root, "moves"))).toEqual([]);
  });
});
