import { describe, expect, it } from "vitest";
import type { InstanceStatus } from "../../crds/instance.ts";
import { planClaim } from "../instance/claim-plan.ts";
import { activeMove, nodeOfDisks } from "./active.ts";
import type { Check } from "./check.ts";
import { factsFixture, migrationFixture, movedInstance, movingStatus, sourceClaim, targetClaim } from "./fixtures.ts";
import { planMove, type MoveFacts } from "./plan.ts";
import { checkInstance } from "./preflight.ts";
import { phaseOf } from "./status.ts";

const STOPPED: Partial<InstanceStatus> = {
  phase: "Stopped",
  claim: { name: "drover-web-2", serial: 2 },
  guest: { state: "Stopped", claimUid: "c1" },
};
const stopped = (status: Partial<InstanceStatus> = {}) => {
  const instance = movedInstance({ ...STOPPED, ...status });
  return { ...instance, spec: { ...instance.spec, power: "Stopped" as const } };
};
const said = (check: Check): string => (check.state === "ok" ? "ok" : `${check.state} ${check.reason}`);
const cold = (status?: Parameters<typeof movingStatus>[1], state?: Parameters<typeof movingStatus>[0]) =>
  migrationFixture(status === undefined ? undefined : movingStatus(state, { sourceClaim: undefined, ...status }), {
    mode: "Cold",
  });
const facts = (more: Partial<MoveFacts>): MoveFacts =>
  factsFixture({ instance: stopped(), sourceClaim: undefined, migration: cold(), ...more });

describe("what must hold before disks are moved", () => {
  it.each<[string, Partial<MoveFacts>, string]>([
    ["it is stopped", {}, "ok"],
    ["it runs", { instance: movedInstance() }, "fail InstanceNotStopped"],
    [
      "it is being stopped",
      { instance: stopped({ phase: "Stopping", claim: { name: "c", serial: 1, uid: "c1" } }) },
      "wait InstanceNotStopped",
    ],
    ["it was never started", { instance: stopped({ nodeName: undefined }) }, "fail NoDisksYet"],
    ["its node is silent", { source: { state: "Silent", reason: "AgentSilent", message: "" } }, "wait AgentSilent"],
    ["its node is gone", { source: { state: "Gone" } }, "fail NodeGone"],
  ])("%s", (_, more, expected) => expect(said(checkInstance(facts(more)))).toBe(expected));
});

describe("an instance whose disks move", () => {
  const plan = (move: ReturnType<typeof activeMove>, power: "Running" | "Stopped") =>
    planClaim({
      instance: { name: "web", uid: "u" },
      power,
      recorded: { name: "drover-web-2", serial: 2 },
      seen: [],
      node: { state: "Answering" },
      move,
      now: 0,
    }).step;
  const moving = (state: Parameters<typeof movingStatus>[0]) => activeMove([cold({}, state)], cold({}).status?.instanceUid ?? "");

  it("gets no claim before they have arrived, and is not disturbed by it", () => {
    for (const state of [undefined, "Copying", "Handover", "Done", "Source"] as const) {
      expect(plan(moving(state), "Running")).toMatchObject({ do: "wait", reason: "Migrating" });
      expect(plan(moving(state), "Stopped")).toEqual({ do: "nothing" });
    }
    expect(plan(undefined, "Running")).toEqual({ do: "create", serial: 2 });
  });

  it("is on the node where they are", () => {
    expect(nodeOfDisks(moving("Handover"), "n1")).toBe("n1");
    expect(nodeOfDisks(moving("Done"), "n1")).toBe("n2");
    expect(nodeOfDisks(undefined, "n1")).toBe("n1");
  });
});

describe("a cold move, step by step", () => {
  it("begins without a claim that it leaves, once nothing else is under way", () => {
    const claim = targetClaim();
    const migration = cold({});
    const plan = planMove(facts({ migration, claim }));
    expect(plan.step).toEqual({ do: "begin", from: undefined, to: { attempt: 1, state: "Copying" } });
    expect(plan.set).toMatchObject({ sourceNode: "n1", targetNode: "n2", sourceClaim: undefined });
    const early = planMove(facts({ migration, claim, otherClaims: [sourceClaim] }));
    expect(early.step.do).toBe("wait");
    expect(early.message).toBe("waits for the end of its claim drover-web-1");
  });

  it("goes on when the instance is to be started meanwhile, and has no phase for memory", () => {
    const migration = cold({ source: { attempt: 1, state: "CopyingMemory" } }, "Copying");
    const running = { ...stopped(), spec: { ...stopped().spec, power: "Running" as const } };
    const plan = planMove(facts({ migration, claim: targetClaim(), instance: running }));
    expect([plan.step.do, plan.message]).toEqual(["wait", "the disks are being copied"]);
    expect(phaseOf(migration, plan)).toBe("CopyingDisk");
  });

  it("lets the target's claim go in the end, once the instance is told and the source has nothing left", () => {
    const migration = cold({ source: { attempt: 1, state: "Released" } }, "Done");
    const claim = targetClaim();
    expect(planMove(facts({ migration, claim })).reason).toBe("Arriving");
    const there = stopped({ nodeName: "n2" });
    expect(planMove(facts({ migration, claim, instance: there })).step).toEqual({ do: "delete-claim", claim, graceSeconds: 1 });
    const over = planMove(facts({ migration, claim: undefined, instance: there }));
    expect([over.end, over.message]).toEqual(["Succeeded", "moved from n1 to n2"]);
    const busy = cold({ source: { attempt: 1, state: "Completed" } }, "Done");
    expect(planMove(facts({ migration: busy, claim, instance: there })).step.do).toBe("wait");
  });
});
