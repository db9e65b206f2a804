import { describe, expect, it } from "vitest";
import { claimFixture, CLAIM, moveFixture, NOW, settled } from "./fixtures.ts";
import { judgeEviction, type EvictionFacts } from "./judge.ts";
import { askedNow, askedOf, notePatch, worthNoting } from "./notes.ts";

const base: EvictionFacts = {
  pod: claimFixture({}),
  instance: settled(),
  moves: [],
  node: { state: "Answering" },
  graceSeconds: undefined,
  now: NOW,
  deadlineMs: 30 * 60_000,
};
const other = "22222222-2222-2222-2222-222222222222";
const movedOn = settled({ status: { claim: { name: "drover-web-bbbbb", serial: 2, uid: other, node: "n2" } } });
const arriving = moveFixture("m", { phase: "CopyingMemory", targetClaim: { name: "drover-web-aaaaa", uid: CLAIM } });
const leaving = moveFixture("m", { phase: "SwitchingOver", sourceClaim: { name: "drover-web-aaaaa", uid: CLAIM } });

const said = (facts: Partial<EvictionFacts>): string => {
  const verdict = judgeEviction({ ...base, ...facts });
  return verdict.allow ? "allowed" : `${verdict.note ? "noted" : "refused"}: ${verdict.message}`;
};

describe.each<[string, Partial<EvictionFacts>, string]>([
  ["a claim that runs", {}, "noted: instance web is moved to another node first"],
  [
    "one whose holder is still starting",
    { pod: claimFixture({ phase: "Pending" }) },
    "noted: instance web is moved to another node first",
  ],
  ["one that is not bound", { pod: claimFixture({ phase: "Pending", node: null }) }, "allowed"],
  [
    "one of which no agent was told",
    { instance: settled({ status: { claim: { name: "x", serial: 1 } }, guest: null }) },
    "allowed",
  ],
  ["one that the kubelet has ended", { pod: claimFixture({ phase: "Failed" }) }, "allowed"],
  [
    "of an instance that was stopped",
    { instance: settled({ spec: { power: "Stopped" }, guest: { state: "Stopped" } }) },
    "allowed",
  ],
  [
    "of an instance that is being stopped",
    { instance: settled({ spec: { power: "Stopped" } }) },
    "noted: instance web is being stopped",
  ],
  ["one that is being deleted", { pod: claimFixture({ deleting: true }) }, "allowed"],
  [
    "one that is being deleted, with a grace period",
    { pod: claimFixture({ deleting: true }), graceSeconds: 0 },
    "refused: instance web is being shut down, and its claim ends when that is done; evict it without a grace period",
  ],
  [
    "an old one",
    { instance: movedOn },
    "refused: instance web has moved to node n2; this claim ends when nothing of it is left here",
  ],
  [
    "an old one of which the agent speaks no more",
    { instance: { ...movedOn, status: { ...movedOn.status, guest: { state: "Running", claimUid: other } } } },
    "allowed",
  ],
  [
    "an old one that is not released yet",
    { instance: { ...movedOn, status: { ...movedOn.status, guest: { state: "Running", claimUid: other } } }, moves: [leaving] },
    "refused: instance web has moved to node n2; this claim ends when nothing of it is left here",
  ],
  ["a move's target", { instance: movedOn, moves: [arriving] }, "noted: instance web is just being moved here by Migration m"],
  ["of an Instance that vanished", { instance: undefined }, "refused: instance web is gone from the API, and is being released"],
  [
    "a move's source",
    {
      moves: [
        moveFixture("m", {
          phase: "CopyingMemory",
          targetNode: "n2",
          source: { attempt: 1, state: "CopyingMemory", progress: "43 %" },
        }),
      ],
    },
    "noted: instance web is moved to another node first: Migration m moves it to n2 (CopyingMemory 43 %)",
  ],
])("%s", (_, facts, expected) => {
  it("is judged so", () => expect(said(facts)).toContain(expected));
});

describe("notes", () => {
  const at = (ms: number) => NOW + ms;
  it("count from the first of a series", () => {
    const first = askedNow(undefined, NOW);
    expect(askedNow(first, at(5_000))).toEqual({ first: NOW, last: at(5_000) });
    expect(askedNow(first, at(600_000))).toEqual({ first: at(600_000), last: at(600_000) });
  });
  it("are written every 20 s", () => {
    expect(worthNoting(undefined, NOW)).toBe(true);
    expect(worthNoting({ first: NOW, last: NOW }, at(19_999))).toBe(false);
    expect(worthNoting({ first: NOW, last: NOW }, at(20_000))).toBe(true);
  });
  it("are read as they were written; nonsense is none", () => {
    const asked = { first: NOW, last: at(7_000) };
    const { metadata } = notePatch("u", asked) as { metadata: { annotations: Record<string, string> } };
    expect(askedOf(claimFixture({ annotations: metadata.annotations }))).toEqual(asked);
    expect(askedOf(claimFixture({ annotations: { "drover.dev/evicted-last": "soon" } }))).toBeUndefined();
    expect(askedOf(claimFixture({}))).toBeUndefined();
  });
});
