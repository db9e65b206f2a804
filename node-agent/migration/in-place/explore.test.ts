import { describe, expect, it, test } from "vitest";
import type { HandoverState } from "../../../crds/migration.ts";
import type { UpdateState } from "../../instance/update.ts";
import { write } from "../handover/types.ts";
import { decideUpdate, type UpdateAction, type UpdateView } from "./decide.ts";

/**
 * Every order of events of a guest's way into another QEMU on its node, over the very function that runs: the agent and both QEMUs that die
 * between any two steps, decisions on records of any age, work and writes that were begun and are done later or never (what QEMU was told
 * goes on without the agent), handing over that fails anywhere and lets the old QEMU run on by itself, cancels at any time.
 */
interface World {
  rec: HandoverState;
  /** It has been Handover. */
  was: boolean;
  note: UpdateView["note"] | "over";
  old: "runs" | "stands" | "dead";
  /** waits: has nothing of the guest. has: all of it, and never ran. */
  neu: "none" | "waits" | "has" | "runs" | "dead";
  /** It has run: what the old one knows is stale. */
  ran: boolean;
  /** The old one hands over, whoever watches. */
  handing: boolean;
  /** The new one was told to run, whoever watches. */
  told: boolean;
  restored: boolean;
  tidy: boolean;
  /** A QEMU that could have run the guest was ended by the agent, and no other can. */
  wasted: boolean;
  /** Begun, and not done yet; gone with the agent. */
  begun: string;
  /** Sent, and not stored yet. */
  sent: string;
}

const START: World = {
  rec: "Copying",
  was: false,
  note: "none",
  old: "runs",
  neu: "none",
  ran: false,
  handing: false,
  told: false,
  restored: false,
  tidy: false,
  wasted: false,
  begun: "",
  sent: "",
};

const listed = (list: string): string[] => list.split(" ").filter(Boolean);
const with_ = (list: string, one: string): string => [...new Set([...listed(list), one])].toSorted().join(" ");
const without = (list: string, one: string): string =>
  listed(list)
    .filter((other) => other !== one)
    .join(" ");

type Decide = (view: UpdateView) => UpdateAction[];

/** As the driver tells it; while the old one hands over it waits for the end of that. */
function seen({ old, neu, ran, handing }: World): UpdateState | undefined {
  if (handing) return undefined;
  if (neu === "runs" || (ran && neu === "has")) return "new";
  if (neu === "has") return "held";
  if (old === "dead") return "gone";
  return neu === "waits" ? "ready" : "old";
}

/** What is wrong with this state; undefined: nothing. */
function harm(w: World): string | undefined {
  if (w.old === "runs" && w.neu === "runs") return "both run";
  if (w.old === "runs" && w.ran) return "the old one runs although the new one ran";
  if (w.wasted) return "the one that could run was ended";
  if (w.rec === "Done" && w.old === "runs") return "the record says Done, and the old one runs";
  if (w.rec === "Source" && w.neu === "runs") return "the record says Source, and the new one runs";
  if (w.note !== "over") return undefined;
  if (w.old === "stands") return "it is over, and the old one stands still";
  if (w.neu === "has" || w.neu === "waits") return "it is over, and a new one waits";
  return undefined;
}

function done(w: World, action: string): Partial<World> {
  const begun = without(w.begun, action);
  switch (action) {
    case "prepare":
      return w.old === "runs" && ["none", "dead"].includes(w.neu) ? { begun, neu: "waits" } : { begun };
    case "switch":
      return w.old === "runs" && w.neu === "waits" ? { begun, handing: true } : { begun };
    case "run":
      return w.neu === "has" ? { begun, told: true } : { begun };
    case "finish": {
      // Once it is noted nobody can know of a new one that has died whether it ran.
      const couldRun = w.old !== "dead" && !w.ran && w.note !== "Switched";
      return { begun, old: "dead", tidy: true, wasted: w.wasted || couldRun };
    }
    case "restore": {
      const lost = w.neu === "runs" || (w.ran && w.neu === "has");
      const stale = w.ran && w.old === "stands";
      return {
        begun,
        neu: w.neu === "none" ? "none" : "dead",
        told: false,
        handing: false,
        old: w.old === "dead" ? "dead" : "runs",
        restored: true,
        tidy: true,
        wasted: w.wasted || (lost && !stale),
      };
    }
    default:
      throw new Error(action);
  }
}

/** All that can happen next, by name. */
function next(w: World, decide: Decide): [string, Partial<World>][] {
  const steps: [string, Partial<World>][] = [];
  const add = (name: string, change: Partial<World>): void => void steps.push([name, change]);
  if (w.handing) {
    add("handed over", { handing: false, old: "stands", neu: "has" });
    add("handing over fails", { handing: false, neu: "dead" });
  }
  if (w.told && w.neu === "has") add("the new one runs", { told: false, neu: "runs", ran: true });
  if (w.old !== "dead") add("the old one dies", { old: "dead", ...(w.handing ? { handing: false, neu: "dead" } : {}) });
  if (["waits", "has", "runs"].includes(w.neu)) add("the new one dies", { neu: "dead", told: false, handing: false });
  if (w.rec === "Copying") add("the operator gives it up", { rec: "Source" });
  for (const one of listed(w.sent)) {
    const [from, to] = one.split(">") as [HandoverState, HandoverState];
    add(`lost: ${one}`, { sent: without(w.sent, one) });
    add(`stored: ${one}`, {
      sent: without(w.sent, one),
      ...(w.rec === from ? { rec: to, was: w.was || to === "Handover" } : {}),
    });
  }
  if (w.note === "over") return steps;
  add("the agent dies", { begun: "", restored: false, tidy: false });
  for (const one of listed(w.begun)) add(`done: ${one}`, done(w, one));
  const qemu = seen(w);
  // An executor does one thing to the processes at a time, and looks again after it.
  if (qemu === undefined || w.begun !== "") return steps;
  const records: (HandoverState | undefined)[] = [undefined, w.rec, "Copying", ...(w.was ? (["Handover"] as const) : [])];
  for (const state of new Set(records)) {
    for (const wantsOut of [false, true]) {
      const record = state && { attempt: 1, state };
      const { note, restored } = w;
      const how = `on ${state ?? "nothing"}${wantsOut ? ", out" : ""}`;
      for (const action of decide({ attempt: 1, record, qemu, note, wantsOut, restored, leftovers: !w.tidy })) {
        if (action.do === "write") add(`sends ${how}`, { sent: with_(w.sent, `${action.from.state}>${action.to.state}`) });
        else if (action.do === "note") add(`notes ${action.note} ${how}`, { note: action.note });
        else if (action.do === "over") add(`over ${how}`, { note: "over", begun: "" });
        else add(`begins ${action.do} ${how}`, { begun: with_(w.begun, action.do), tidy: false, restored: false });
      }
    }
  }
  return steps;
}

function explore(decide: Decide): { states: number; harm: string | undefined; path: string[]; stuck: string | undefined } {
  const key = (w: World): string => JSON.stringify(w);
  const known = new Map<string, { from: string | undefined; by: string; to: string[] }>([
    [key(START), { from: undefined, by: "", to: [] }],
  ]);
  const pathTo = (id: string): string[] => {
    const path: string[] = [];
    for (let at = known.get(id); at?.from !== undefined; at = known.get(at.from)) path.unshift(at.by);
    return path;
  };
  const ends = new Set<string>();
  for (const [id, entry] of known) {
    const world = JSON.parse(id) as World;
    const found = harm(world);
    if (found !== undefined) return { states: known.size, harm: found, path: pathTo(id), stuck: undefined };
    if (world.note === "over") ends.add(id);
    for (const [by, change] of next(world, decide)) {
      const to = key({ ...world, ...change });
      if (!CHANCE.test(by)) entry.to.push(to);
      if (!known.has(to)) known.set(to, { from: id, by, to: [] });
    }
  }
  for (let grown = true; grown; ) {
    grown = false;
    for (const [id, { to }] of known) {
      if (ends.has(id) || !to.some((one) => ends.has(one))) continue;
      ends.add(id);
      grown = true;
    }
  }
  return { states: known.size, harm: undefined, path: [], stuck: [...known.keys()].find((id) => !ends.has(id)) };
}

/** What may never happen: an end must be in reach without it. */
const CHANCE = /dies|fails|lost|, out$|gives it up/;

/** The function with one decision of it replaced. */
const changed =
  (when: (view: UpdateView) => boolean, instead: UpdateAction[]): Decide =>
  (view) =>
    when(view) ? instead : decideUpdate(view);
const isIn = (view: UpdateView, ...states: HandoverState[]): boolean =>
  view.record !== undefined && states.includes(view.record.state);

describe("a guest that gets another QEMU on its node", () => {
  test("in whatever order things happen, one of the two runs it, and an end can be reached", () => {
    const { harm: found, path, stuck, states } = explore(decideUpdate);
    expect([found, path]).toEqual([undefined, []]);
    expect(stuck).toBeUndefined();
    expect(states).toBeGreaterThan(500);
  });

  it.each<[string, Decide, string]>([
    [
      "lets the new one run before that is noted",
      changed((v) => v.qemu === "held" && v.note === "none" && !v.wantsOut, [{ do: "run" }]),
      "the old one runs although the new one ran",
    ],
    [
      "goes back although it is noted",
      changed((v) => v.note === "Switched" && v.wantsOut && !isIn(v, "Done"), [{ do: "note", note: "GivingUp" }]),
      "the record says Done, and the old one runs",
    ],
    [
      "takes a new one that has died after the note for one that never ran",
      changed((v) => v.note === "Switched" && v.qemu === "old" && !isIn(v, "Done"), [{ do: "note", note: "GivingUp" }]),
      "the old one runs although the new one ran",
    ],
    [
      "ends the old one before the record says Done",
      changed((v) => v.qemu === "held" && v.note === "none" && !v.wantsOut, [{ do: "finish" }]),
      "the one that could run was ended",
    ],
    [
      "ends the old one when the new one only waits",
      changed((v) => isIn(v, "Handover") && v.qemu === "ready" && v.note === "none" && !v.wantsOut, [{ do: "finish" }]),
      "the one that could run was ended",
    ],
    [
      "says Done before the new one was let run",
      changed((v) => v.note === "Switched" && v.qemu === "held" && !isIn(v, "Done"), [write(1, "Handover", "Done")]),
      "it is over, and a new one waits",
    ],
    [
      "does not wait for the record to say Handover",
      changed((v) => isIn(v, "Copying") && v.qemu === "ready" && v.note === "none" && !v.wantsOut, [{ do: "switch" }]),
      "the record says Source, and the new one runs",
    ],
    [
      "gives up without a note",
      changed((v) => isIn(v, "Handover") && v.note === "none" && v.wantsOut, [write(1, "Handover", "Source")]),
      "the record says Source, and the new one runs",
    ],
    [
      "gives up without letting the old one run",
      changed((v) => v.note === "GivingUp" && isIn(v, "Copying", "Handover"), [write(1, "Handover", "Source")]),
      "no end is in reach",
    ],
    [
      "leaves the new one when it is given up",
      changed((v) => isIn(v, "Source"), [{ do: "over" }]),
      "it is over, and a new one waits",
    ],
    [
      "leaves a guest that stands still",
      changed((v) => v.qemu === "held" && v.note === "none" && !v.wantsOut, []),
      "no end is in reach",
    ],
  ])("is found out when it %s", (_, decide, want) => {
    const { harm: found, stuck } = explore(decide);
    expect(found ?? (stuck === undefined ? "nothing" : "no end is in reach")).toBe(want);
  });
});
