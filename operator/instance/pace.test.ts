import { describe, expect, it } from "vitest";
import { FakeClock } from "../../kube/index.ts";
import { COALESCE_MS, Pace, SETTLE_MS, UNDER_WAY_MS, holdBackMs } from "./pace.ts";
import type { OwnStatus } from "./status.ts";

const scheduling: OwnStatus = { phase: "Pending", reason: "Scheduling" };
const starting: OwnStatus = { phase: "Starting", reason: "WaitingForAgent", nodeName: "n1" };
const running: OwnStatus = { phase: "Running", reason: "HolderStarting" };
const ready = (status: "True" | "False"): OwnStatus["conditions"] => [
  { type: "Ready", status, reason: "R", message: "", lastTransitionTime: "" },
];

describe("holdBackMs", () => {
  it.each<[string, OwnStatus, OwnStatus, { sinceWrite?: number; sinceHeld?: number }, number]>([
    ["claim just made", {}, scheduling, {}, SETTLE_MS],
    ["claim made a while ago", {}, scheduling, { sinceHeld: 200 }, SETTLE_MS - 200],
    ["not bound in time", {}, scheduling, { sinceHeld: 300 }, 0],
    ["a network of the same file is unknown yet", {}, { phase: "Pending", reason: "NetworkNotFound" }, {}, SETTLE_MS],
    ["a network is unknown", {}, { phase: "Pending", reason: "NetworkNotFound" }, { sinceHeld: 250 }, 0],
    ["bound meanwhile", {}, { phase: "Starting", nodeName: "n1" }, { sinceHeld: 20 }, 0],
    [
      "its pool is there: claim just made",
      { phase: "Pending", reason: "WaitingForPool" },
      scheduling,
      { sinceWrite: 9 },
      SETTLE_MS,
    ],
    ["its agent has begun", starting, { ...starting, reason: "Preparing" }, { sinceWrite: 1100 }, UNDER_WAY_MS - 1100],
    ["its guest is being started", starting, { ...starting, reason: "Starting" }, { sinceWrite: 1100 }, UNDER_WAY_MS - 1100],
    ["its image takes long", starting, { ...starting, reason: "Preparing" }, { sinceWrite: UNDER_WAY_MS }, 0],
    ["its image cannot be had", starting, { ...starting, reason: "ImageUnreachable" }, { sinceWrite: 1100 }, 0],
    ["its guest runs", starting, { ...running, nodeName: "n1" }, { sinceWrite: 1 }, 0],
    ["first change since the start", running, { ...running, reason: "NotInstalled" }, {}, 0],
    ["a reason, soon after", running, { ...running, reason: "NotInstalled" }, { sinceWrite: 300 }, COALESCE_MS - 300],
    ["a reason, later", running, { ...running, reason: "NotInstalled" }, { sinceWrite: 1500 }, 0],
    ["the phase", running, { phase: "Error" }, { sinceWrite: 1 }, 0],
    ["readiness", { ...running, conditions: ready("False") }, { ...running, conditions: ready("True") }, { sinceWrite: 1 }, 0],
    ["a node", running, { ...running, nodeName: "n1" }, { sinceWrite: 1 }, 0],
    ["a claim", running, { ...running, claim: { name: "c", serial: 1, uid: "u" } }, { sinceWrite: 1 }, 0],
    ["addresses", running, { ...running, nics: [{ name: "a", network: "b", mac: "", port: "", mtu: 1 }] }, { sinceWrite: 1 }, 0],
    [
      "a reason, its addresses in another order of keys",
      { ...running, nics: [{ name: "a", network: "b", mac: "", port: "", mtu: 1 }] },
      { ...running, reason: "NotInstalled", nics: [{ mac: "", mtu: 1, name: "a", network: "b", port: "" }] },
      { sinceWrite: 300 },
      COALESCE_MS - 300,
    ],
    ["another spec", running, { ...running, observedGeneration: 2 }, { sinceWrite: 1 }, 0],
  ])("%s", (_, have, want, since, expected) => {
    expect(holdBackMs(have, want, since)).toBe(expected);
  });
});

describe("Pace", () => {
  it("holds a first status back once, and later ones after each write", () => {
    const clock = new FakeClock();
    const pace = new Pace(clock);
    expect(pace.holdBack("u", {}, scheduling)).toBe(SETTLE_MS);
    clock.freeze(100);
    expect(pace.holdBack("u", {}, scheduling)).toBe(SETTLE_MS - 100);
    clock.freeze(200);
    expect(pace.holdBack("u", {}, scheduling)).toBe(0);
    pace.wrote("u");
    clock.freeze(400);
    expect(pace.holdBack("u", running, { ...running, reason: "X" })).toBe(COALESCE_MS - 400);
    pace.forget("u");
    expect(pace.holdBack("u", running, { ...running, reason: "X" })).toBe(0);
  });
});
