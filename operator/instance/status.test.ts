import { describe, expect, it } from "vitest";
import { claimName } from "../../crds/names.ts";
import type { GuestStatus, InstanceSpec, NicStatus } from "../../crds/instance.ts";
import type { ClaimStep } from "./claim-plan.ts";
import type { ClaimRecord, ClaimSeen, NodeSeen } from "./facts.ts";
import { UID, instanceFixture } from "./fixtures.ts";
import type { Problems, StatusFacts } from "./phase.ts";
import { computeStatus } from "./status.ts";

const NOW = new Date("2026-01-01T00:01:00Z");
const name = claimName("web", UID, 1);
const nic: NicStatus = { name: "eth0", network: "blue", mac: "52:54:00:00:00:01", ipv4: "10.10.0.2", port: "p", mtu: 1442 };
const waitingClaim: ClaimSeen = { name, uid: "c1", createdAt: 0, deleting: false, holderRunning: false };
const claim: ClaimSeen = { ...waitingClaim, node: "n1", holderRunning: true };
const made: ClaimRecord = { name, serial: 1 };
const bound: ClaimRecord = { ...made, uid: "c1", node: "n1" };
const running: GuestStatus = {
  state: "Running",
  claimUid: "c1",
  accelerator: "TCG",
  machineType: "pc-q35-10.0",
  cpuModel: "qemu64-v1",
  image: { ready: true },
  disks: { ready: true },
  nics: [{ name: "eth0", tap: "d1", installed: true }],
};
const silent: NodeSeen = { state: "Silent", reason: "NodeNotReady", message: "node n1 does not answer" };
const fenced: NodeSeen = { state: "Fenced", reason: "NodeOutOfService", message: "node n1 was put out of service" };
const noNetwork = { reason: "NetworkNotFound", message: "there is no Network blue" };
const noPool = { reason: "PoolNotFound", message: "there is no StoragePool local" };
const noRoom = { reason: "Unschedulable", message: "0/3 nodes are available: 3 Insufficient memory." };

interface Case {
  spec?: Partial<InstanceSpec>;
  deleting?: boolean;
  step?: ClaimStep;
  record?: ClaimRecord;
  claim?: ClaimSeen;
  nodeName?: string;
  node?: NodeSeen;
  nics?: NicStatus[];
  guest?: GuestStatus;
  problems?: Problems;
}

/** An instance that runs, unless told otherwise. */
function facts(given: Case): StatusFacts {
  const { spec = {}, deleting = false, step, problems = {}, node = { state: "Answering" }, nics = [nic] } = given;
  const seen = "claim" in given ? given.claim : claim;
  const record = "record" in given ? given.record : bound;
  const nodeName = "nodeName" in given ? given.nodeName : "n1";
  const guest = "guest" in given ? given.guest : running;
  const keep: ClaimStep = seen === undefined ? { do: "create", serial: 1 } : { do: "keep", claim: seen };
  return {
    instance: instanceFixture({
      spec,
      metadata: deleting ? { deletionTimestamp: "2026-01-01T00:00:30Z" } : {},
      ...(guest === undefined ? {} : { status: { guest } }),
    }),
    plan: { step: step ?? keep, record },
    claim: seen,
    nodeName,
    node,
    nics,
    problems,
    now: NOW,
  };
}

const fresh: Case = { claim: undefined, record: undefined, nodeName: undefined, guest: undefined, nics: [] };
const unplaced: Case = { ...fresh, claim: waitingClaim, record: made, nics: [nic] };
const stopped: Case = { ...fresh, spec: { power: "Stopped" }, step: { do: "nothing" } };

/** `Phase/Reason` and the conditions as S I D N R, each T, F or U. */
function summary(given: Case): string {
  const { phase, reason, conditions } = computeStatus(facts(given));
  const letters = ["Scheduled", "ImageReady", "DisksReady", "NetworkReady", "Ready"].map(
    (type) => conditions?.find((condition) => condition.type === type)?.status[0] ?? "-",
  );
  return `${phase}/${reason} ${letters.join("")}`;
}

describe("computeStatus", () => {
  it.each<[string, Case, string]>([
    ["just applied, network unknown", { ...fresh, problems: { network: noNetwork } }, "Pending/NetworkNotFound FUUFF"],
    ["just applied, pool unknown", { ...fresh, problems: { pool: noPool, network: noNetwork } }, "Pending/PoolNotFound FUFFF"],
    [
      "claim refused by a quota",
      { ...fresh, problems: { claim: { reason: "ClaimRefused", message: "" } } },
      "Pending/ClaimRefused FUUUF",
    ],
    ["claim made", unplaced, "Pending/Scheduling FUUUF"],
    ["no room", { ...unplaced, claim: { ...waitingClaim, unscheduled: noRoom } }, "Pending/Unschedulable FUUUF"],
    ["placed", { guest: undefined }, "Starting/WaitingForAgent TUUFF"],
    ["agent still speaks of the claim before", { guest: { ...running, claimUid: "c0" } }, "Starting/WaitingForAgent TTTFF"],
    ["agent has begun", { guest: { state: "Preparing", claimUid: "c1" } }, "Starting/Preparing TUUFF"],
    [
      "image cannot be had",
      {
        guest: {
          state: "Failed",
          claimUid: "c1",
          reason: "ChecksumMismatch",
          message: "m",
          image: { ready: false, reason: "ChecksumMismatch", message: "m" },
        },
      },
      "Error/ChecksumMismatch TFUFF",
    ],
    ["runs", {}, "Running/Running TTTTT"],
    ["runs, without NICs", { spec: { nics: [] }, nics: [], guest: { ...running, nics: [] } }, "Running/Running TTTTT"],
    [
      "runs, flows missing",
      { guest: { ...running, nics: [{ name: "eth0", tap: "d1", installed: false }] } },
      "Running/NotInstalled TTTFF",
    ],
    ["runs, holder not yet", { claim: { ...claim, holderRunning: false } }, "Running/HolderStarting TTTTF"],
    ["runs, OVN away", { problems: { network: { reason: "OVNUnreachable", message: "" } } }, "Running/OVNUnreachable TTTFF"],
    ["runs, its network gone from view", { problems: { network: noNetwork } }, "Running/NetworkNotFound TTTFF"],
    ["node silent", { node: silent }, "Unknown/NodeNotReady TTTTU"],
    ["node gone", { node: { state: "Gone" } }, "Unknown/NodeGone TTTTU"],
    ["node fenced, its claim still there", { node: fenced }, "Unknown/NodeOutOfService TTTTU"],
    [
      "node fenced, its guest had ended before",
      { node: fenced, guest: { ...running, state: "Failed" } },
      "Error/GuestFailed TTTTF",
    ],
    [
      "node fenced, claim gone: waits for the node",
      { ...unplaced, nodeName: "n1", node: fenced, guest: running },
      "Pending/Scheduling FTTFF",
    ],
    ["deleted, node gone: let go", { deleting: true, node: { state: "Gone" } }, "Stopping/Deleting TTTTF"],
    ["memory limit", { guest: { ...running, state: "Failed", reason: "MemoryLimit", message: "m" } }, "Error/MemoryLimit TTTTF"],
    ["shut itself down", { guest: { ...running, state: "Stopped", nics: [] } }, "Stopped/GuestStopped TTTFF"],
    ["claim lost", { claim: undefined, step: { do: "wait", reason: "ClaimLost", message: "" } }, "Stopping/ClaimLost TTTTF"],
    ["never started", stopped, "Stopped/PoweredOff FUUUF"],
    [
      "shutting down",
      { spec: { power: "Stopped" }, step: { do: "wait", reason: "ShuttingDown", message: "" } },
      "Stopping/ShuttingDown TTTTF",
    ],
    ["stopped, claim ending", { spec: { power: "Stopped" }, step: { do: "delete", claim } }, "Stopping/ClaimEnding TTTTF"],
    [
      "stopped",
      { ...stopped, record: { name: "next", serial: 2 }, nodeName: "n1", nics: [nic], guest: { ...running, state: "Stopped" } },
      "Stopped/PoweredOff FTTFF",
    ],
    [
      "stopped, its node silent: nothing runs there",
      { ...stopped, record: { name: "next", serial: 2 }, nodeName: "n1", guest: { ...running, state: "Stopped" }, node: silent },
      "Stopped/PoweredOff FTTFF",
    ],
    [
      "to be stopped, node silent",
      { spec: { power: "Stopped" }, step: { do: "wait", reason: "ShuttingDown", message: "" }, node: silent },
      "Unknown/NodeNotReady TTTTU",
    ],
    [
      "deleted",
      { deleting: true, problems: { release: { reason: "WaitingForAgent", message: "" } } },
      "Stopping/WaitingForAgent TTTTF",
    ],
    ["deleted, node silent", { deleting: true, node: silent }, "Unknown/NodeNotReady TTTTU"],
    [
      "deleted and released, node silent since",
      { deleting: true, node: silent, guest: { ...running, state: "Released" } },
      "Stopping/Deleting TTTTF",
    ],
    ["deleted before it was placed", { ...unplaced, deleting: true }, "Stopping/Deleting FUUUF"],
  ])("%s", (_, given, expected) => {
    expect(summary(given)).toBe(expected);
  });

  it("is complete, with its columns", () => {
    const condition = (type: string, reason: string, message: string) => ({
      type,
      status: "True",
      reason,
      message,
      observedGeneration: 1,
      lastTransitionTime: "2026-01-01T00:01:00Z",
    });
    expect(computeStatus(facts({}))).toEqual({
      observedGeneration: 1,
      phase: "Running",
      reason: "Running",
      conditions: [
        condition("Scheduled", "Bound", `its claim ${name} is bound to node n1`),
        condition("ImageReady", "Imported", "the image is on node n1"),
        condition("DisksReady", "Made", "its disks are on node n1"),
        condition("NetworkReady", "Installed", "OVN has installed the flows of its network cards"),
        condition("Migratable", "Migratable", "its guest can be moved to another node while it runs"),
        {
          ...condition("RuntimeCurrent", "RuntimeUnknown", "the agent of node n1 has not said which runtime its guest runs in"),
          status: "Unknown",
        },
        condition("Ready", "Running", "its guest runs"),
      ],
      nodeName: "n1",
      claim: bound,
      ip: "10.10.0.2",
      nics: [nic],
    });
  });

  it("names no claim before one could be made", () => {
    expect(computeStatus(facts({ ...fresh, record: made, problems: { network: noNetwork } })).claim).toBeUndefined();
  });

  it("says the scheduler's own words", () => {
    const status = computeStatus(facts({ ...unplaced, claim: { ...waitingClaim, unscheduled: noRoom } }));
    expect(status.conditions?.find(({ type }) => type === "Scheduled")?.message).toBe(noRoom.message);
    expect(status.conditions?.find(({ type }) => type === "Ready")?.message).toBe(noRoom.message);
  });

  it("keeps the time of a condition that did not change", () => {
    const before = facts({});
    const first = computeStatus(before);
    const later = {
      ...before,
      now: new Date("2026-01-02T00:00:00Z"),
      instance: { ...before.instance, status: { ...first, guest: running } },
    };
    expect(computeStatus(later)).toEqual(first);
  });
});
