import { describe, expect, it } from "vitest";
import type { MigrationStatus } from "../../../crds/migration.ts";
import { MIB } from "../../../crds/quantity.ts";
import { ApiError, type PodCondition } from "../../../kube/index.ts";
import { claimSeen, type ClaimMemory, type ClaimSeen } from "../../instance/facts.ts";
import { sourceClaim } from "../fixtures.ts";
import { planMove, type MoveFacts, type MovePlan } from "../plan.ts";
import { updateFacts, updateFixture, updatingStatus } from "./fixtures.ts";
import { refusedResize } from "./resize.ts";

const HAS = 700 * MIB;
const WANTS = 764 * MIB;
const words = { reason: "NoRoomInClaim", message: "3 MiB are free; move the instance, or restart it", retryable: false };
const growth = { attempt: 1, fromBytes: HAS, toBytes: WANTS };
const infeasible = { reason: "Infeasible", message: "Node didn't have enough capacity: memory" };
const deferred = { reason: "Deferred", message: "Node didn't have enough resource: memory" };

/** An attempt that was given up because its claim has no room, and is cleared away. */
const noRoom = (more: Partial<MigrationStatus> = {}): MigrationStatus => {
  const attempt = (more.retries ?? 0) + 1;
  const told = { source: { attempt, state: "GivenUp" as const, ...words }, target: { attempt, state: "Released" as const } };
  return updatingStatus("Source", { ...told, ...more });
};
const claim = (memory: ClaimMemory | undefined, more: Partial<ClaimSeen> = {}): Partial<MoveFacts> => ({
  sourceClaim: { ...sourceClaim, memory, ...more },
});
const at = (status: MigrationStatus, memory: ClaimMemory | undefined, more: Partial<MoveFacts> = {}) =>
  updateFacts({ migration: updateFixture(status), ...claim(memory), ...more });
const cancelled = (status: MigrationStatus) => ({ migration: updateFixture(status, { cancel: true }) });
const late = { lasted: (_: string, value: string | undefined) => (value === undefined ? 0 : 30_000) };

function said({ step, end, reason, set }: MovePlan): string {
  const what = step.do === "resize-claim" ? `resize to ${step.toBytes / MIB}` : (end ?? step.do);
  const refused = set?.claimGrowth?.refused === undefined ? "" : ` (refused: ${set.claimGrowth.refused})`;
  return `${what}: ${reason}${refused}`;
}

describe("a claim without room for a second QEMU", () => {
  it.each<[string, MoveFacts, string]>([
    ["is to grow", at(noRoom(), { limitBytes: HAS, givenBytes: HAS }), "note: GrowingClaim"],
    ["without a limit of its own", at(noRoom(), undefined), "Failed: NoRoomInClaim"],
    ["cancelled before", at(noRoom(), { limitBytes: HAS }, cancelled(noRoom())), "Cancelled: Cancelled"],
    ["that is noted", at(noRoom({ claimGrowth: growth }), { limitBytes: HAS, givenBytes: HAS }), "resize to 764: GrowingClaim"],
    ["it is asked for", at(noRoom({ claimGrowth: growth }), { limitBytes: WANTS, givenBytes: HAS }), "wait: GrowingClaim"],
    [
      "the node has no room now",
      at(noRoom({ claimGrowth: growth }), { limitBytes: WANTS, givenBytes: HAS, refused: deferred }),
      "wait: GrowingClaim",
    ],
    [
      "nor for half a minute",
      at(noRoom({ claimGrowth: growth }), { limitBytes: WANTS, givenBytes: HAS, refused: deferred }, late),
      "note: GrowingClaim (refused: the kubelet has yet to give it: Node didn't have enough resource: memory)",
    ],
    [
      "the node never has room",
      at(noRoom({ claimGrowth: growth }), { limitBytes: WANTS, givenBytes: HAS, refused: infeasible }),
      "note: GrowingClaim (refused: the kubelet refuses it: Node didn't have enough capacity: memory)",
    ],
    [
      "a kubelet that knows no resizes",
      at(noRoom({ claimGrowth: growth }), { limitBytes: WANTS }, late),
      "note: GrowingClaim (refused: the kubelet has not given it)",
    ],
    [
      "the API server refuses",
      at(
        noRoom({ claimGrowth: growth }),
        { limitBytes: HAS },
        { refused: { reason: "ResizeRefused", message: "exceeded quota" } },
      ),
      "note: GrowingClaim (refused: exceeded quota)",
    ],
    [
      "cancelled while it is asked for",
      at(noRoom({ claimGrowth: growth }), { limitBytes: WANTS, givenBytes: HAS }, cancelled(noRoom({ claimGrowth: growth }))),
      "note: GrowingClaim (refused: it was cancelled)",
    ],
    [
      "what was asked for is taken back",
      at(noRoom({ claimGrowth: { ...growth, refused: "no" } }), { limitBytes: WANTS, givenBytes: HAS }),
      "resize to 700: NoRoomInClaim",
    ],
    [
      "then it is over",
      at(noRoom({ claimGrowth: { ...growth, refused: "no" } }), { limitBytes: HAS, givenBytes: HAS }),
      "Failed: NoRoomInClaim",
    ],
    [
      "also when it cannot be taken back",
      at(
        noRoom({ claimGrowth: { ...growth, refused: "no" } }),
        { limitBytes: WANTS, givenBytes: HAS },
        { refused: { reason: "ResizeRefused", message: "webhook" } },
      ),
      "Failed: NoRoomInClaim",
    ],
    ["it has grown", at(noRoom({ claimGrowth: growth }), { limitBytes: WANTS, givenBytes: WANTS }), "note: Retrying"],
    [
      "it has grown, and that was not enough",
      at(noRoom({ retries: 1, claimGrowth: growth }), { limitBytes: WANTS, givenBytes: WANTS }),
      "Failed: NoRoomInClaim",
    ],
  ])("%s", (_, facts, want) => expect(said(planMove(facts))).toBe(want));

  it("is tried again with room, also where nothing else is", () => {
    const facts = at(noRoom({ claimGrowth: growth }), { limitBytes: WANTS, givenBytes: WANTS });
    const plan = planMove({ ...facts, settings: { ...facts.settings, retries: 0 } });
    expect([plan.step.do, plan.set?.retries]).toEqual(["note", 1]);
  });

  it("says by how much it grows, and in the end why it could not", () => {
    expect(planMove(at(noRoom(), { limitBytes: HAS }))).toMatchObject({
      message: "the claim drover-web-1 has no room for a second QEMU: its memory limit is raised from 700Mi to 764Mi",
      set: { claimGrowth: growth },
    });
    expect(planMove(at(noRoom({ claimGrowth: { ...growth, refused: "no" } }), { limitBytes: HAS })).message).toBe(
      "3 MiB are free; move the instance, or restart it; the claim could not be given more: no",
    );
  });
});

describe("what a claim pod says of its memory", () => {
  const pod = (limit: string, given: string | undefined, resize?: Partial<PodCondition>) =>
    claimSeen({
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "c", uid: "c1", generation: 3 },
      spec: { containers: [{ name: "mesh" }, { name: "holder", resources: { limits: { memory: limit } } }] },
      status: {
        conditions: resize && [{ type: "PodResizePending", status: "True", ...resize }],
        containerStatuses: [
          { name: "mesh", ready: true, restartCount: 0, resources: { limits: { memory: "1Mi" } } },
          { name: "holder", ready: true, restartCount: 0, resources: given === undefined ? {} : { limits: { memory: given } } },
        ],
      },
    } as never).memory;

  it.each([
    ["as it was made", pod(String(HAS), "700Mi"), { limitBytes: HAS, givenBytes: HAS }],
    ["by a kubelet that says nothing", pod("700Mi", undefined), { limitBytes: HAS, givenBytes: undefined }],
    ["under way", pod("764Mi", "700Mi"), { limitBytes: WANTS, givenBytes: HAS }],
    ["refused", pod("764Mi", "700Mi", infeasible), { limitBytes: WANTS, givenBytes: HAS, refused: infeasible }],
    [
      "refused at an earlier size",
      pod("764Mi", "700Mi", { ...infeasible, observedGeneration: 2 }),
      { limitBytes: WANTS, givenBytes: HAS },
    ],
    [
      "refused at this size",
      pod("764Mi", "700Mi", { ...infeasible, observedGeneration: 3 }),
      { limitBytes: WANTS, givenBytes: HAS, refused: infeasible },
    ],
    ["in a notation that we never write", pod("1e9", "1e9"), undefined],
  ])("%s", (_, seen, want) => expect(seen).toEqual(want));
});

describe("what the API server says against a resize", () => {
  const error = (code: number, message: string) => new ApiError(code, "", message);
  it("is told, unless it can pass", () => {
    expect(refusedResize(error(403, "exceeded quota"))?.message).toContain("exceeded quota");
    expect(refusedResize(error(404, "could not find the requested resource"))?.message).toContain("1.33 and newer");
    expect(refusedResize(error(500, "down"))).toBeUndefined();
    expect(refusedResize(new Error("socket hang up"))).toBeUndefined();
  });
});
