/** What a move changes for its instance: its claims, its phase, its conditions. */
import { describe, expect, it } from "vitest";
import type { GuestStatus, Instance } from "../../crds/instance.ts";
import type { HandoverState } from "../../crds/migration.ts";
import { activeMove, type ActiveMove } from "../migration/active.ts";
import { guestFixture, migrationFixture, movedInstance, movingStatus, sourceClaim, targetClaim } from "../migration/fixtures.ts";
import { updateFixture, updatingStatus } from "../migration/in-place/fixtures.ts";
import { planClaim, strayClaims, type ClaimFacts } from "./claim-plan.ts";
import { targetClaimPod, type TargetPlace } from "./claim.ts";
import type { ClaimRecord, ClaimSeen, NodeSeen } from "./facts.ts";
import { instanceFixture, UID } from "./fixtures.ts";
import type { StatusFacts } from "./phase.ts";
import { computeStatus } from "./status.ts";

const moveIn = (state: HandoverState | undefined, more: Parameters<typeof movingStatus>[1] = {}): ActiveMove => {
  const move = activeMove([migrationFixture(movingStatus(state, more))], UID);
  if (move === undefined) throw new Error("the fixture has its turn");
  return move;
};
/** Its QEMU is replaced where it is. */
const updateIn = (state: HandoverState | undefined): ActiveMove => {
  const move = activeMove([updateFixture(updatingStatus(state))], UID);
  if (move === undefined) throw new Error("the fixture has its turn");
  return move;
};
const released = { source: { attempt: 1, state: "Released" as const } };
const atSource: ClaimRecord = { name: "drover-web-1", serial: 1, uid: "c1", node: "n1" };
const goal = targetClaim();
const atTarget: ClaimRecord = { name: goal.name, serial: 2, uid: "c2", node: "n2", countsDisks: true };
const fenced: NodeSeen = { state: "Fenced", reason: "NodeOutOfService", message: "" };
const answering: NodeSeen = { state: "Answering" };

describe("targetClaimPod", () => {
  const settings = { holderImage: "h", holderPullPolicy: "IfNotPresent" as const, cpuOvercommit: 4, priorityClassName: "p" };
  const disk = { name: "root", sourcePool: "local", targetPool: "fast", sizeBytes: 1.5 * 1024 ** 3, copy: true };
  const place: TargetPlace = { name: "goal", migration: "web-1", sourceNode: "n1", unsuitable: [], disks: [disk] };
  const made = (more: Partial<TargetPlace> = {}) => targetClaimPod(instanceFixture(), { ...place, ...more }, settings);
  const required = (term: object) => ({
    nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [term] } },
  });
  const name = (operator: "In" | "NotIn", node: string) => ({ key: "metadata.name", operator, values: [node] });

  it("bears the label of its Migration, and asks for the room of the disks that are copied", () => {
    const pod = made({ disks: [disk, { ...disk, name: "data" }, { ...disk, name: "shared", targetPool: "nfs", copy: false }] });
    expect(pod.metadata).toMatchObject({ name: "goal", labels: { "drover.dev/claim": "web", "drover.dev/migration": "web-1" } });
    const { requests, limits } = pod.spec.containers[0]?.resources ?? { requests: {}, limits: {} };
    expect(requests).toMatchObject({ "drover.dev/pool.fast": "4" });
    expect(limits).toMatchObject({ "drover.dev/pool.fast": "4" });
    expect(requests).not.toHaveProperty("drover.dev/pool.nfs");
  });

  it("asks also for the room of what stays on the node, when that will be counted to it", () => {
    const data = { ...disk, name: "data", targetPool: "local", copy: false };
    const pod = made({ nodeName: "n1", disks: [disk, data, { ...data, name: "nfs", targetPool: "nfs" }], staying: ["data"] });
    const requests = pod.spec.containers[0]?.resources.requests ?? {};
    expect(requests).toMatchObject({ "drover.dev/pool.fast": "2", "drover.dev/pool.local": "2" });
    expect(requests).not.toHaveProperty("drover.dev/pool.nfs");
  });

  it.each<[string, Partial<TargetPlace>, object]>([
    [
      "anywhere but where the guest is, or cannot be",
      { unsuitable: ["n1", "n7"] },
      { matchFields: [name("NotIn", "n1"), name("NotIn", "n7")] },
    ],
    ["to the node that is named, whatever it is", { nodeName: "n2", unsuitable: ["n7"] }, { matchFields: [name("In", "n2")] }],
    [
      "where the labels are, beside the instance's own",
      { nodeSelector: { disk: "nvme" } },
      { matchFields: [name("NotIn", "n1")], matchExpressions: [{ key: "disk", operator: "In", values: ["nvme"] }] },
    ],
  ])("goes %s", (_, more, term) => expect(made(more).spec.affinity).toEqual(required(term)));
});

describe("the claim of an instance that moves", () => {
  const plan = (move: ActiveMove, more: Partial<ClaimFacts> = {}) => {
    const seen: ClaimSeen[] = [sourceClaim, goal];
    const facts: ClaimFacts = {
      instance: { name: "web", uid: UID },
      power: "Running",
      recorded: atSource,
      seen,
      guest: guestFixture,
      node: answering,
      move,
      now: 0,
      ...more,
    };
    const { step, record } = planClaim(facts);
    return [step.do === "wait" ? `wait ${step.reason}` : step.do, record];
  };

  it.each<[string, ActiveMove, Partial<ClaimFacts>, [string, ClaimRecord]]>([
    ["has its turn", moveIn(undefined), {}, ["keep", atSource]],
    ["is copied", moveIn("Copying"), {}, ["keep", atSource]],
    ["is switched over", moveIn("Handover"), {}, ["keep", atSource]],
    ["has arrived", moveIn("Done"), {}, ["keep", atTarget]],
    ["has arrived, and was told", moveIn("Done"), { recorded: atTarget }, ["keep", atTarget]],
    ["was given up", moveIn("Source"), {}, ["keep", atSource]],
    ["is copied off a dead node", moveIn("Copying"), { node: fenced, seen: [goal] }, ["wait Migrating", atSource]],
    [
      "was given up with its node dead",
      moveIn("Source"),
      { node: fenced, seen: [goal] },
      ["create", { name: expect.any(String), serial: 2 }],
    ],
    ["is copied, and stopped", moveIn("Copying"), { power: "Stopped" }, ["wait ShuttingDown", atSource]],
    [
      "is copied, and its agent says that it has stopped",
      moveIn("Copying"),
      { power: "Stopped", guest: { ...guestFixture, state: "Stopped" } },
      ["wait Migrating", atSource],
    ],
    ["is updated in place", updateIn("Handover"), { seen: [sourceClaim] }, ["keep", atSource]],
    ["has been updated in place", updateIn("Done"), { seen: [sourceClaim] }, ["keep", atSource]],
    [
      "is updated in place, and its agent says that it has stopped",
      updateIn("Handover"),
      { seen: [sourceClaim], power: "Stopped", guest: { ...guestFixture, state: "Stopped" } },
      ["wait Migrating", atSource],
    ],
    ["has arrived, and is stopped", moveIn("Done"), { power: "Stopped" }, ["wait ShuttingDown", atTarget]],
  ])("that %s", (_, move, more, want) => expect(plan(move, more)).toEqual(want));

  it.each<[string, ActiveMove | undefined, ClaimRecord, GuestStatus, string[]]>([
    ["the target's is not yet the instance's", moveIn(undefined), atSource, guestFixture, []],
    ["both are in use", moveIn("Handover"), atSource, guestFixture, []],
    ["the source still has something in the old one", moveIn("Done"), atTarget, { ...guestFixture, claimUid: "c2" }, []],
    ["the source has let go", moveIn("Done", released), atTarget, { ...guestFixture, claimUid: "c2" }, ["c1"]],
    ["the source has let go, and nobody speaks of the target yet", moveIn("Done", released), atTarget, guestFixture, []],
    ["it is updated in place", updateIn("Done"), atSource, guestFixture, ["c2"]],
    ["the move has ended", undefined, atTarget, { ...guestFixture, claimUid: "c2" }, ["c1"]],
    ["the move is gone", undefined, atSource, guestFixture, ["c2"]],
  ])("stray while %s", (_, move, record, guest, want) => {
    expect(strayClaims({ seen: [sourceClaim, goal], guest, move }, record).map(({ uid }) => uid)).toEqual(want);
  });
});

describe("the status of an instance that moves", () => {
  const nic = { name: "eth0", network: "blue", mac: "52:54:00:00:00:01", port: "p", mtu: 1442 };
  const guest: GuestStatus = { ...guestFixture, nics: [{ name: "eth0", tap: "d0", installed: true }] };
  const of = (instance: Instance, record: ClaimRecord, move: ActiveMove | undefined) => {
    const claim = record.uid === "c1" ? sourceClaim : goal;
    const facts: StatusFacts = {
      instance,
      plan: { step: { do: "keep", claim }, record },
      claim,
      nodeName: record.node ?? "",
      node: answering,
      nics: [nic],
      problems: {},
      move,
      now: new Date(0),
    };
    return computeStatus(facts);
  };
  const inWords = ({ phase, reason, conditions = [] }: ReturnType<typeof computeStatus>) => {
    const is = (type: string) => conditions.find((one) => one.type === type)?.status;
    return `${phase} ${reason} Ready=${is("Ready")} Network=${is("NetworkReady")} Migratable=${is("Migratable")}`;
  };
  const before = movedInstance({ guest });

  it.each<[string, Instance, ClaimRecord, ActiveMove | undefined, string]>([
    ["has its turn", before, atSource, moveIn(undefined), "Running Running Ready=True Network=True Migratable=True"],
    ["is copied", before, atSource, moveIn("Copying"), "Migrating Migrating Ready=True Network=True Migratable=True"],
    ["is switched over", before, atSource, moveIn("Handover"), "Migrating Migrating Ready=True Network=True Migratable=True"],
    ["has just arrived", before, atTarget, moveIn("Done"), "Migrating Migrating Ready=True Network=True Migratable=True"],
    [
      "was taken up there",
      movedInstance({ guest: { ...guest, claimUid: "c2" } }),
      atTarget,
      moveIn("Done"),
      "Running Running Ready=True Network=True Migratable=True",
    ],
    ["was given up", before, atSource, moveIn("Source"), "Running Running Ready=True Network=True Migratable=True"],
    ["is updated in place", before, atSource, updateIn("Handover"), "Running Running Ready=True Network=True Migratable=True"],
    ["has been updated in place", before, atSource, updateIn("Done"), "Running Running Ready=True Network=True Migratable=True"],
    [
      "fails while it is copied",
      movedInstance({ guest: { ...guest, state: "Failed" } }),
      atSource,
      moveIn("Copying"),
      "Error GuestFailed Ready=False Network=True Migratable=Unknown",
    ],
  ])("that %s", (_, instance, record, move, want) => expect(inWords(of(instance, record, move))).toBe(want));

  it("runs nowhere while a decision is awaited", () => {
    const conditions = [
      { type: "Ready", status: "False" as const, reason: "NeedsDecision", message: "decide", lastTransitionTime: "" },
    ];
    const status = of(before, atSource, moveIn("Handover", { reason: "NeedsDecision", conditions }));
    expect(inWords(status)).toBe("Unknown NeedsDecision Ready=Unknown Network=True Migratable=Unknown");
  });

  it("names its move, its new node, and its disks where they lie elsewhere now", () => {
    const disks = [{ name: "root", sourcePool: "local", targetPool: "fast", sizeBytes: 1, copy: true }];
    const arrived = of(before, atTarget, moveIn("Done", { disks }));
    expect(arrived).toMatchObject({
      nodeName: "n2",
      claim: atTarget,
      disks: [{ name: "root", pool: "fast" }],
      migration: { name: "web-1" },
    });
    expect(of(before, atSource, moveIn("Copying", { disks })).disks).toBeUndefined();
    const back = movedInstance({ guest, disks: [{ name: "root", pool: "fast" }] });
    const home = [{ name: "root", sourcePool: "fast", targetPool: "local", sizeBytes: 1, copy: true }];
    expect(of(back, atTarget, moveIn("Done", { disks: home })).disks).toBeUndefined();
    expect(of(back, atSource, updateIn("Done")).disks).toEqual([{ name: "root", pool: "fast" }]);
    expect(of(back, atSource, undefined).disks).toEqual([{ name: "root", pool: "fast" }]);
  });
});
