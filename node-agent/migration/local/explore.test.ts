import { describe, expect, it, test } from "vitest";
import type { HandoverState } from "../../../crds/migration.ts";
import type { PoolMoveState } from "../../instance/pool-move.ts";
import { write } from "../handover/types.ts";
import { decideLocal, type LocalAction, type LocalView } from "./decide.ts";

/**
 * Every order of events of a disk's way to another pool, over the very function that runs: the agent, QEMU and the node that die between
 * any two steps, decisions on records of any age, work and writes that were begun and are done later or never, copying that fails
 * anywhere, cancels at any time. A volume is behind when a power cut would leave it without something that the guest was told to be
 * written: what is written to both is flushed on the old one alone.
 */
interface World {
  rec: HandoverState;
  /** It has been Handover. */
  was: boolean;
  note: LocalView["note"] | "over";
  disk: PoolMoveState;
  settled: boolean;
  oldBehind: boolean;
  newBehind: boolean;
  oldGone: boolean;
  newGone: boolean;
  /** Begun, and not done yet; gone with the agent. */
  begun: string;
  /** Sent, and not stored yet. */
  sent: string;
  /** QEMU refused to exchange the disks, and that is not noted yet. */
  refused: boolean;
}

const START: World = {
  rec: "Copying",
  was: false,
  note: "none",
  disk: "old",
  settled: false,
  oldBehind: false,
  newBehind: true,
  oldGone: false,
  newGone: false,
  begun: "",
  sent: "",
  refused: false,
};

const with_ = (list: string, one: string): string => [...new Set([...list.split(" ").filter(Boolean), one])].toSorted().join(" ");
const without = (list: string, one: string): string =>
  list
    .split(" ")
    .filter((other) => other !== one)
    .join(" ");

type Decide = (view: LocalView) => LocalAction[];
interface Rules {
  decide: Decide;
  /** QEMU may refuse to exchange the disks; or it may, and die before that is noted. */
  refusal?: "lives" | "dies";
}

const runs = ({ disk }: World): boolean => disk !== "gone";

/** What is wrong with this state; undefined: nothing. */
function harm(w: World): string | undefined {
  const over = w.note === "over";
  const right = w.note === "Pivoting" || (over && w.rec === "Done") ? "new" : "old";
  const excused = w.refused && runs(w);
  if (w.rec === "Done" && right === "old") return "the record says Done, and the old one is right";
  if (w.rec === "Source" && right === "new") return "the record says Source, and the new one is right";
  if (right === "new" ? w.newGone : w.oldGone) return "the right one was destroyed";
  if ((right === "new" ? w.newBehind : w.oldBehind) && !excused) return "the right one lacks what was written";
  if (over && w.disk !== "gone" && w.disk !== right) return "it is over, and the guest writes to the wrong one";
  if (w.disk === "new" && right === "old") return "the guest writes to the new one, and the old one is right";
  return undefined;
}

function done(w: World, action: string): Partial<World> {
  const begun = without(w.begun, action);
  switch (action) {
    case "copy":
      return w.disk === "old" ? { begun, disk: "copying", newBehind: true, newGone: false } : { begun };
    case "complete":
      return w.disk === "ready" ? { begun, disk: "pending", newBehind: false } : { begun };
    case "pivot":
      return w.disk === "pending" ? { begun, disk: "new" } : { begun };
    case "settle":
      return w.disk === "new" ? { begun, settled: true } : { begun };
    case "cancel":
      return ["copying", "ready", "pending"].includes(w.disk) ? { begun, disk: "old" } : { begun };
    case "destroyOld":
      return { begun, oldGone: true };
    case "destroyNew":
      return { begun, newGone: true };
    default:
      throw new Error(action);
  }
}

/** All that can happen next, by name. */
function next(w: World, { decide, refusal }: Rules): [string, Partial<World>][] {
  const steps: [string, Partial<World>][] = [];
  const add = (name: string, change: Partial<World>): void => void steps.push([name, change]);
  if (w.disk === "old" || w.disk === "copying" || w.disk === "ready") add("the guest writes", { newBehind: true });
  if (w.disk === "new") add("the guest writes", { oldBehind: true });
  if (w.disk === "copying") add("in step", { disk: "ready" });
  if (w.disk === "copying" || w.disk === "ready") add("copying fails", { disk: "old" });
  if (runs(w) && !(w.refused && refusal !== "dies")) add("QEMU dies", { disk: "gone", settled: false });
  if (w.rec === "Copying") add("the operator gives it up", { rec: "Source" });
  for (const one of w.sent.split(" ").filter(Boolean)) {
    const [from, to] = one.split(">") as [HandoverState, HandoverState];
    add(`lost: ${one}`, { sent: without(w.sent, one) });
    const stored = w.rec === from ? { rec: to, was: w.was || to === "Handover" } : {};
    add(`stored: ${one}`, { sent: without(w.sent, one), ...stored });
  }
  if (w.note === "over") return steps;
  add("the agent dies", { begun: "", settled: false });
  for (const one of w.begun.split(" ").filter(Boolean)) {
    add(`done: ${one}`, done(w, one));
    if (one === "pivot" && w.disk === "pending" && refusal !== undefined)
      add("refused: pivot", { begun: without(w.begun, one), disk: "old", refused: true });
  }
  const records: (HandoverState | undefined)[] = [undefined, w.rec, "Copying", ...(w.was ? (["Handover"] as const) : [])];
  for (const state of new Set(records)) {
    for (const wantsOut of [false, true]) {
      const leftovers = w.rec === "Done" ? !w.oldGone : !w.newGone;
      const record = state && { attempt: 1, state };
      const view = { attempt: 1, record, disk: w.disk, note: w.note, wantsOut, settled: w.settled, leftovers };
      const how = `on ${state ?? "nothing"}${wantsOut ? ", out" : ""}`;
      for (const action of decide(view)) {
        if (action.do === "write") add(`sends ${how}`, { sent: with_(w.sent, `${action.from.state}>${action.to.state}`) });
        else if (action.do === "note")
          add(`notes ${action.note} ${how}`, { note: action.note, refused: w.refused && action.note !== "GivingUp" });
        else if (action.do === "over") add(`over ${how}`, { note: "over", begun: "" });
        else add(`begins ${action.do} ${how}`, { begun: with_(w.begun, action.do) });
      }
      if (state === "Copying" && w.note === "none" && w.disk === "old" && !wantsOut) add("begins copy", done(w, "copy"));
    }
  }
  return steps;
}

function explore(rules: Rules): { states: number; harm: string | undefined; path: string[]; stuck: string | undefined } {
  const key = (w: World): string => JSON.stringify(w);
  const seen = new Map<string, { from: string | undefined; by: string; to: string[] }>([
    [key(START), { from: undefined, by: "", to: [] }],
  ]);
  const pathTo = (id: string): string[] => {
    const path: string[] = [];
    for (let at = seen.get(id); at?.from !== undefined; at = seen.get(at.from)) path.unshift(at.by);
    return path;
  };
  const ends = new Set<string>();
  for (const [id, entry] of seen) {
    const world = JSON.parse(id) as World;
    const found = harm(world);
    if (found !== undefined) return { states: seen.size, harm: found, path: pathTo(id), stuck: undefined };
    if (world.note === "over") ends.add(id);
    for (const [by, change] of next(world, rules)) {
      const to = key({ ...world, ...change });
      entry.to.push(to);
      if (!seen.has(to)) seen.set(to, { from: id, by, to: [] });
    }
  }
  for (let grown = true; grown; ) {
    grown = false;
    for (const [id, { to }] of seen) {
      if (ends.has(id) || !to.some((one) => ends.has(one))) continue;
      ends.add(id);
      grown = true;
    }
  }
  const stuck = [...seen.keys()].find((id) => !ends.has(id));
  return { states: seen.size, harm: undefined, path: [], stuck };
}

/** The function with one decision of it replaced. */
const changed =
  (when: (view: LocalView) => boolean, instead: LocalAction[]): Decide =>
  (view) =>
    when(view) ? instead : decideLocal(view);
const isIn = (view: LocalView, state: HandoverState): boolean => view.record?.state === state;

describe("a disk that goes to another pool of its node", () => {
  test("in whatever order things happen, one volume is right and has all, and an end can be reached", () => {
    const { harm: found, path, stuck, states } = explore({ decide: decideLocal });
    expect([found, path]).toEqual([undefined, []]);
    expect(stuck).toBeUndefined();
    expect(states).toBeGreaterThan(500);
  });

  test("an exchange that QEMU refuses does no harm, unless the node dies before that is noted", () => {
    expect(explore({ decide: decideLocal, refusal: "lives" })).toMatchObject({ harm: undefined, stuck: undefined });
    expect(explore({ decide: decideLocal, refusal: "dies" }).harm).toBe("the right one lacks what was written");
  });

  it.each<[string, Decide, string]>([
    [
      "notes it while the guest still writes",
      changed((v) => isIn(v, "Handover") && v.disk === "ready" && v.note === "none", [{ do: "note", note: "Pivoting" }]),
      "the right one lacks what was written",
    ],
    [
      "exchanges them before that is noted",
      changed((v) => isIn(v, "Handover") && v.disk === "pending" && v.note === "none", [{ do: "pivot" }]),
      "the guest writes to the new one, and the old one is right",
    ],
    [
      "gives up without a note",
      changed((v) => isIn(v, "Handover") && v.note === "none" && v.wantsOut, [write(1, "Handover", "Source")]),
      "the record says Source, and the new one is right",
    ],
    [
      "gives up a guest that has ended after the note",
      changed((v) => v.note === "Pivoting" && v.disk === "gone" && !isIn(v, "Done"), [{ do: "note", note: "GivingUp" }]),
      "the right one lacks what was written",
    ],
    [
      "says Done before the exchange",
      changed((v) => isIn(v, "Handover") && v.note === "Pivoting" && v.disk === "pending", [write(1, "Handover", "Done")]),
      "it is over, and the guest writes to the wrong one",
    ],
    [
      "destroys the old one early",
      changed((v) => isIn(v, "Handover") && v.disk === "pending" && v.note === "none", [{ do: "destroyOld" }]),
      "the right one was destroyed",
    ],
    [
      "does not wait for the record to say Handover",
      (v) => {
        if (!isIn(v, "Copying") || v.note !== "none" || v.wantsOut) return decideLocal(v);
        if (v.disk === "ready") return [{ do: "complete" }];
        return v.disk === "pending" ? [{ do: "note", note: "Pivoting" }] : [];
      },
      "the record says Source, and the new one is right",
    ],
  ])("is found out when it %s", (_, decide, want) => expect(explore({ decide }).harm).toBe(want));
});
