import { describe, expect, it } from "vitest";
import {
  factsFixture,
  goodNode,
  hostFixture,
  migrationFixture,
  movedInstance,
  movingStatus,
  NOW,
  targetClaim,
} from "./fixtures.ts";
import { chassisOf, activeMove } from "./active.ts";
import { UID } from "../instance/fixtures.ts";
import { staysOnNode } from "./local.ts";
import { planMove, type MoveFacts } from "./plan.ts";
import { checkInstance, checkTarget } from "./preflight.ts";

const disks = [{ name: "root", sourcePool: "local", targetPool: "fast", sizeBytes: 2 ** 30, copy: true }];
const spec = { target: { pool: "fast", node: "n1" } };
const begun = (state: Parameters<typeof movingStatus>[0], more: Parameters<typeof movingStatus>[1] = {}) =>
  migrationFixture(movingStatus(state, { targetNode: "n1", disks, ...more }), spec);
const facts = (more: Partial<MoveFacts>): MoveFacts => factsFixture({ claim: targetClaim({ node: "n1" }), ...more });

describe("whether a move stays on its node", () => {
  it.each<[string, Parameters<typeof migrationFixture>[1], string[], boolean]>([
    ["its own node is named", spec, ["n1", "n2"], true],
    ["another node is named", { target: { pool: "fast", node: "n2" } }, ["n1"], false],
    ["no node, and no other has the pool", { target: { pool: "fast" } }, ["n1"], true],
    ["no node, and others have the pool", { target: { pool: "fast" } }, ["n1", "n2"], false],
    ["no node, and nobody has the pool", { target: { pool: "fast" } }, [], false],
    ["labels are asked for", { target: { pool: "fast", nodeSelector: { a: "b" } } }, ["n1"], false],
    ["no pool", { target: { node: "n1" } }, ["n1"], false],
    ["the pool that it lies in", { target: { pool: "local", node: "n1" } }, ["n1"], false],
  ])("%s", (_, asked, nodes, want) =>
    expect(staysOnNode(migrationFixture(undefined, asked), movedInstance(), () => nodes)).toBe(want),
  );

  it("knows the pool that an earlier move put it into", () =>
    expect(
      staysOnNode(migrationFixture(undefined, spec), movedInstance({ disks: [{ name: "root", pool: "fast" }] }), () => []),
    ).toBe(false));
});

describe("what is checked before", () => {
  const here = goodNode("n1", { host: hostFixture("n1", { pools: [{ name: "fast", ready: true }] }) });
  it("takes the present node, whatever its QEMU is, when the pool is another", () => {
    const old = { ...here, host: hostFixture("n1", { machineTypes: [], pools: [{ name: "fast", ready: true }] }) };
    expect(checkTarget(migrationFixture(undefined, spec), movedInstance(), old)).toEqual({ state: "ok" });
  });
  it("refuses the pool that the disk lies in", () =>
    expect(checkTarget(migrationFixture(undefined, { target: { pool: "local", node: "n1" } }), movedInstance(), here)).toEqual({
      state: "fail",
      reason: "TargetIsPresentNode",
      message: "instance web is on node n1 already, with its root disk in pool local; name another node, or another pool",
    }));
  it("does not ask whether the guest could leave its QEMU", () => {
    const instance = movedInstance();
    if (instance.status?.guest !== undefined) instance.status.guest.qemuVersion = "7.2.9";
    expect(checkInstance(factsFixture({ instance, migration: migrationFixture(undefined, spec) }))).toEqual({ state: "ok" });
  });
});

describe("the plan of a move that stays on its node", () => {
  it("begins with one disk to copy, from the node to itself", () => {
    const migration = migrationFixture(movingStatus(), spec);
    const nodeFacts = () => goodNode("n1", { host: hostFixture("n1", { pools: [{ name: "fast", ready: true }] }) });
    const plan = planMove(facts({ migration, nodeFacts }));
    expect(plan).toMatchObject({
      step: { do: "begin", to: { attempt: 1, state: "Copying" } },
      set: { sourceNode: "n1", targetNode: "n1", sourceClaim: { uid: "c1" }, targetClaim: { uid: "c2" }, disks },
      progressing: { message: "disk root from pool local to pool fast of node n1" },
    });
  });

  it("waits for its claim's holder, before which nothing protects the guest in it", () => {
    const nodeFacts = () => goodNode("n1", { host: hostFixture("n1", { pools: [{ name: "fast", ready: true }] }) });
    const claim = targetClaim({ node: "n1", holderRunning: false });
    const plan = planMove(facts({ migration: migrationFixture(movingStatus(), spec), nodeFacts, claim }));
    expect([plan.step.do, plan.reason]).toEqual(["wait", "HolderStarting"]);
  });

  it.each<[string, Partial<MoveFacts>]>([
    ["cancelled", { migration: { ...begun("Handover"), spec: { ...begun("Handover").spec, cancel: true } } }],
    ["on a dead node", { source: { state: "Gone" }, target: { state: "Gone" } }],
    [
      "on a dead node, with a decision",
      {
        source: { state: "Gone" },
        target: { state: "Gone" },
        migration: { ...begun("Handover"), spec: { ...begun("Handover").spec, keep: "Source" } },
      },
    ],
  ])("leaves a switchover to its agent: %s", (_, more) => {
    const plan = planMove(facts({ migration: begun("Handover"), ...more }));
    expect(plan.step).toMatchObject({ do: "wait" });
    expect(plan.needsDecision).toBeUndefined();
  });

  it("gives up before that like any other", () => {
    const migration = begun("Copying");
    const plan = planMove(facts({ migration: { ...migration, spec: { ...migration.spec, cancel: true } } }));
    expect(plan.step).toMatchObject({ do: "write", to: { state: "Source" } });
  });

  it("ends when the instance names the new pool and its agent the new claim", () => {
    const migration = begun("Done", { source: { attempt: 1, state: "Released" } });
    const wait = planMove(facts({ migration }));
    expect([wait.step.do, wait.reason]).toEqual(["wait", "Arriving"]);
    const instance = movedInstance({
      disks: [{ name: "root", pool: "fast" }],
      claim: { name: "c", serial: 2, uid: "c2", node: "n1", countsDisks: true },
      guest: { state: "Running", claimUid: "c2" },
    });
    const plan = planMove(facts({ migration, instance, claim: targetClaim({ node: "n1", labelled: false }), now: NOW }));
    expect(plan).toMatchObject({ end: "Succeeded", message: "moved disk root from pool local to pool fast of node n1" });
  });

  it("has its ports on one chassis", () => {
    expect(chassisOf(activeMove([begun("Copying")], UID), "n1")).toEqual(["n1"]);
  });
});
