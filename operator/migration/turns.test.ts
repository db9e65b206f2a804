import { describe, expect, it, vi } from "vitest";
import { admit, Turns, type Held, type Wanted } from "./turns.ts";

const limits = { outPerNode: 2, inPerNode: 2, perCluster: 4 };
const held = (uid: string, source: string, target?: string): Held => ({ uid, source, target });
const wants = (uid: string, source: string, target?: string, rank = 1, createdAt = 0): Wanted => ({
  ...held(uid, source, target),
  urgency: { rank, createdAt },
});

const said = (have: Held[], wanted: Wanted[]): Record<string, string> =>
  Object.fromEntries([...admit(have, wanted, limits)].map(([uid, turn]) => [uid, turn.granted ? "goes" : turn.message]));

describe("admit", () => {
  it.each([
    ["nobody moves", [], [wants("a", "n1")], { a: "goes" }],
    [
      "two leave the node",
      [held("x", "n1", "n2"), held("y", "n1", "n3")],
      [wants("a", "n1")],
      { a: "waits for a slot on node n1: 2 of 2 moves leave it now" },
    ],
    [
      "two go to the node",
      [held("x", "n1", "n9"), held("y", "n2", "n9")],
      [wants("a", "n3", "n9")],
      { a: "waits for a slot on node n9: 2 of 2 moves go to it now" },
    ],
    ["where it goes is not known yet", [held("x", "n1", "n9"), held("y", "n2", "n9")], [wants("a", "n3")], { a: "goes" }],
    [
      "one that has its turn wants its place, and keeps its turn meanwhile",
      [held("a", "n1"), held("w", "n1"), held("x", "n2", "n9"), held("y", "n3", "n9")],
      [wants("a", "n1", "n9", 2), wants("b", "n1", undefined, 0)],
      {
        a: "waits for a slot on node n9: 2 of 2 moves go to it now",
        b: "waits for a slot on node n1: 2 of 2 moves leave it now",
      },
    ],
    [
      "the cluster is full",
      [held("w", "n1"), held("x", "n2"), held("y", "n3"), held("z", "n4")],
      [wants("a", "n5")],
      { a: "waits for a slot in the cluster: 4 of 4 moves are under way now" },
    ],
    [
      "a drain comes before a user, a user before rebalancing, then age",
      [held("x", "n1")],
      [wants("c", "n1", undefined, 2, 0), wants("b", "n1", undefined, 1, 5), wants("a", "n1", undefined, 0, 9)],
      {
        a: "goes",
        b: "waits for a slot on node n1: 2 of 2 moves leave it now",
        c: "waits for a slot on node n1: 2 of 2 moves leave it now",
      },
    ],
    [
      "one that cannot go holds nobody else back",
      [held("x", "n1"), held("y", "n1")],
      [wants("a", "n1", undefined, 0), wants("b", "n2", undefined, 2)],
      { a: "waits for a slot on node n1: 2 of 2 moves leave it now", b: "goes" },
    ],
  ])("%s", (_, have, wanted, want) => expect(said(have, wanted)).toEqual(want));
});

describe("Turns", () => {
  it("counts what was granted and does not yet stand in the API, once", () => {
    const api: Held[] = [];
    const turns = new Turns(limits, () => api);
    expect(turns.ask(wants("a", "n1"), vi.fn()).granted).toBe(true);
    expect(turns.ask(wants("b", "n1"), vi.fn()).granted).toBe(true);
    api.push(held("a", "n1"));
    const wake = vi.fn();
    expect(turns.ask(wants("c", "n1"), wake).granted).toBe(false);
    turns.settle("a");
    expect(wake).not.toHaveBeenCalled();
    api.length = 0;
    turns.settle("a");
    expect(wake).toHaveBeenCalledOnce();
    expect(turns.ask(wants("c", "n1"), wake).granted).toBe(true);
  });

  it("asks again for its place where it goes, without counting itself twice", () => {
    const api = [held("a", "n1"), held("x", "n2", "n9"), held("y", "n3", "n9")];
    const turns = new Turns(limits, () => api);
    const wake = vi.fn();
    expect(turns.ask(wants("a", "n1", "n9"), wake)).toMatchObject({ granted: false, reason: "WaitingForSlot" });
    api.pop();
    turns.wakeNext();
    expect(wake).toHaveBeenCalledOnce();
    expect(turns.ask(wants("a", "n1", "n9"), wake).granted).toBe(true);
  });

  it("lets the more urgent of those that wait go first", () => {
    const api = [held("x", "n1"), held("y", "n1")];
    const turns = new Turns(limits, () => api);
    const [user, drain] = [vi.fn(), vi.fn()];
    turns.ask(wants("user", "n1", undefined, 1, 1), user);
    turns.ask(wants("drain", "n1", undefined, 0, 2), drain);
    api.pop();
    turns.wakeNext();
    expect([user, drain].map((wake) => wake.mock.calls.length)).toEqual([0, 1]);
  });
});
