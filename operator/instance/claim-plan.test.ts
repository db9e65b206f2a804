import { describe, expect, it } from "vitest";
import { claimName } from "../../crds/names.ts";
import type { GuestStatus } from "../../crds/instance.ts";
import { planClaim, strayClaims, type ClaimFacts, type ClaimStep } from "./claim-plan.ts";
import type { ClaimRecord, ClaimSeen, NodeSeen, Power } from "./facts.ts";

const NOW = Date.parse("2026-01-01T00:01:00Z");
const name = (serial: number) => claimName("web", "u", serial);

const pod = (serial: number, overrides: Partial<ClaimSeen> = {}): ClaimSeen => ({
  name: name(serial),
  uid: `pod-${serial}`,
  createdAt: NOW - 60_000,
  deleting: false,
  holderRunning: true,
  node: "n1",
  ...overrides,
});
const unbound = (serial: number, overrides: Partial<ClaimSeen> = {}): ClaimSeen => {
  const { node: _, ...rest } = pod(serial, { holderRunning: false, ...overrides });
  return rest;
};
const recorded = (serial: number): ClaimRecord => ({ name: name(serial), serial });
const bound = (serial: number): ClaimRecord => ({ ...recorded(serial), uid: `pod-${serial}`, node: "n1" });
const guest = (state: GuestStatus["state"], serial: number): GuestStatus => ({ state, claimUid: `pod-${serial}` });
const evicted = { reason: "Evicted", message: "low on memory" };

const answering: NodeSeen = { state: "Answering" };
const silent: NodeSeen = { state: "Silent", reason: "NodeNotReady", message: "node n1 does not answer" };
const fenced: NodeSeen = { state: "Fenced", reason: "NodeOutOfService", message: "node n1 is out of service" };

const say = (step: ClaimStep): string => {
  switch (step.do) {
    case "create":
      return `create ${step.serial}`;
    case "delete":
    case "keep":
      return `${step.do} ${step.claim.name === name(1) ? 1 : 2}`;
    case "wait":
      return `wait ${step.reason}`;
    case "nothing":
    default:
      return step.do;
  }
};

interface Case {
  power?: Power;
  recorded?: ClaimRecord;
  seen?: ClaimSeen[];
  guest?: GuestStatus;
  node?: NodeSeen;
}

const facts = ({ power = "Running", seen = [], node = answering, ...rest }: Case): ClaimFacts => ({
  instance: { name: "web", uid: "u" },
  power,
  seen,
  node,
  now: NOW,
  ...rest,
});

describe("planClaim: a claim that no agent was told of", () => {
  it.each<[string, Case, string, ClaimRecord | undefined]>([
    ["nothing there", {}, "create 1", recorded(1)],
    ["killed after making the claim, before saying so", { seen: [unbound(1)] }, "keep 1", recorded(1)],
    ["killed, and bound since", { seen: [pod(1)] }, "keep 1", bound(1)],
    ["not placed yet", { recorded: recorded(1), seen: [unbound(1)] }, "keep 1", recorded(1)],
    ["bound", { recorded: recorded(1), seen: [pod(1)] }, "keep 1", bound(1)],
    ["deleted before it was bound", { recorded: recorded(1) }, "create 1", recorded(1)],
    ["being deleted", { recorded: recorded(1), seen: [unbound(1, { deleting: true })] }, "wait ClaimDeleted", recorded(1)],
    [
      "refused by the kubelet just now",
      { recorded: recorded(1), seen: [pod(1, { ended: evicted, createdAt: NOW - 1000 })] },
      "wait ClaimRefused",
      recorded(1),
    ],
    ["refused a while ago", { recorded: recorded(1), seen: [pod(1, { ended: evicted })] }, "delete 1", recorded(1)],
    ["never started", { power: "Stopped" }, "nothing", undefined],
    ["stopped before it was placed", { power: "Stopped", recorded: recorded(1), seen: [unbound(1)] }, "delete 1", recorded(1)],
    [
      "stopped before anyone was told of its node",
      { power: "Stopped", recorded: recorded(1), seen: [pod(1)] },
      "delete 1",
      recorded(1),
    ],
    [
      "stopped, its claim ending",
      { power: "Stopped", recorded: recorded(1), seen: [unbound(1, { deleting: true })] },
      "wait ClaimEnding",
      recorded(1),
    ],
    ["stopped for long", { power: "Stopped", recorded: recorded(2), guest: guest("Stopped", 1) }, "nothing", recorded(2)],
    ["started again", { recorded: recorded(2), guest: guest("Stopped", 1) }, "create 2", recorded(2)],
  ])("%s", (_, given, step, record) => {
    const plan = planClaim(facts(given));
    expect([say(plan.step), plan.record]).toEqual([step, record]);
  });
});

describe("planClaim: a claim that an agent was told of", () => {
  it.each<[string, Case, string, ClaimRecord]>([
    ["runs", { seen: [pod(1)], guest: guest("Running", 1) }, "keep 1", bound(1)],
    ["not yet picked up", { seen: [pod(1)] }, "keep 1", bound(1)],
    ["shut down by itself", { seen: [pod(1)], guest: guest("Stopped", 1) }, "keep 1", bound(1)],
    ["node silent", { seen: [pod(1)], node: silent }, "keep 1", bound(1)],
    ["to be stopped", { power: "Stopped", seen: [pod(1)], guest: guest("Running", 1) }, "wait ShuttingDown", bound(1)],
    ["stopped before the agent saw it", { power: "Stopped", seen: [pod(1)] }, "wait ShuttingDown", bound(1)],
    [
      "only an earlier guest is known to be stopped",
      { power: "Stopped", recorded: bound(2), seen: [pod(2)], guest: guest("Stopped", 1) },
      "wait ShuttingDown",
      bound(2),
    ],
    ["its guest has stopped", { power: "Stopped", seen: [pod(1)], guest: guest("Stopped", 1) }, "delete 1", bound(1)],
    [
      "claim ending",
      { power: "Stopped", seen: [pod(1, { deleting: true })], guest: guest("Stopped", 1) },
      "wait ClaimEnding",
      bound(1),
    ],
    ["all is stopped", { power: "Stopped", guest: guest("Stopped", 1) }, "nothing", recorded(2)],
    ["deleted from outside", { seen: [pod(1, { deleting: true })], guest: guest("Running", 1) }, "wait ClaimDeleted", bound(1)],
    ["gone, its guest may run", { guest: guest("Running", 1) }, "wait ClaimLost", bound(1)],
    ["gone, nothing ever heard", {}, "wait ClaimLost", bound(1)],
    ["gone, node silent", { guest: guest("Running", 1), node: silent }, "wait ClaimLost", bound(1)],
    ["gone with its Node object", { guest: guest("Running", 1), node: { state: "Gone" } }, "wait ClaimLost", bound(1)],
    ["gone, its guest has ended", { guest: guest("Failed", 1) }, "create 2", recorded(2)],
    ["gone, node fenced", { guest: guest("Running", 1), node: fenced }, "create 2", recorded(2)],
    ["gone and made anew, killed before saying so", { seen: [unbound(2)], guest: guest("Failed", 1) }, "keep 2", recorded(2)],
    ["a foreign pod of its name", { seen: [pod(1, { uid: "other" })], guest: guest("Running", 1) }, "wait ClaimLost", bound(1)],
    ["evicted", { seen: [pod(1, { ended: evicted })], guest: guest("Running", 1) }, "wait ClaimEnded", bound(1)],
    ["evicted, its guest has ended", { seen: [pod(1, { ended: evicted })], guest: guest("Failed", 1) }, "delete 1", bound(1)],
  ])("%s", (_, given, step, record) => {
    const plan = planClaim(facts({ recorded: bound(1), ...given }));
    expect([say(plan.step), plan.record]).toEqual([step, record]);
  });
});

describe("strayClaims", () => {
  it.each<[string, ClaimRecord | undefined, ClaimSeen[], GuestStatus | undefined, string[]]>([
    ["its own claim", bound(1), [pod(1)], undefined, []],
    ["a claim just made", recorded(2), [unbound(2)], guest("Failed", 1), []],
    ["a foreign pod of its name", bound(1), [pod(1, { uid: "other" })], undefined, ["other"]],
    ["another serial", bound(1), [pod(1), pod(2)], undefined, ["pod-2"]],
    ["another serial, where its guest is", bound(1), [pod(2)], guest("Running", 2), []],
    ["another serial, ending already", bound(1), [pod(2, { deleting: true })], undefined, []],
    ["none wanted", undefined, [unbound(1)], undefined, ["pod-1"]],
  ])("%s", (_, record, seen, guestStatus, uids) => {
    const given = guestStatus === undefined ? { seen } : { seen, guest: guestStatus };
    expect(strayClaims(given, record).map(({ uid }) => uid)).toEqual(uids);
  });
});
