import { describe, expect, test } from "vitest";
import type { HandoverState } from "../../../crds/migration.ts";
import { decideOperator, type OperatorView } from "../../../operator/migration/handover.ts";
import { Broken, type Choice, type Harm, REAL, type Rules, type Step, Steps } from "./explore-steps.ts";
import { FAIR, up } from "./explore-views.ts";
import { pack, packChange, START, type World } from "./explore-world.ts";
import { decideSource } from "./source.ts";
import { decideTarget } from "./target.ts";
import { type SourceAction, type SourceView, stateOf, type TargetAction, type TargetView } from "./types.ts";

/**
 * Every order of events of a live move, over the very functions that run: agents that die between any two steps and decide on
 * records of any age, writes that land late or never, messages that are lost, late or repeated, QEMU that fails anywhere, nodes that
 * die, are fenced and come back, cancels and decisions of users at any time, and a second attempt with late words of the first.
 */
/** The guest has one owner, and it lives there unless that node has died; nothing of the move is left where anybody lives. */
function isEnd(w: World, keep: "Source" | "Target"): boolean {
  const sourceThrough = !up(w.sLife) || w.sNote === "settled";
  const targetThrough = !up(w.tLife) || w.tNote === "settled";
  if (w.rec === "Source") return sourceThrough && targetThrough && (!up(w.sLife) || w.sq === "idle");
  if (w.rec === "Done") return sourceThrough && targetThrough && (!up(w.tLife) || w.tq === "running");
  // A user had it so: the guest waits for its node to come back.
  return w.rec === "Target" && w.tLife === "proven" && keep === "Target";
}

interface Explored {
  readonly states: number;
  readonly bad: string | undefined;
  readonly path: readonly string[];
}

/** Walks all that can happen, until a rule is broken; then looks for states without a way to an end. */
function explore(rules: Rules, only?: Harm, start = START): Explored {
  const seen = new Map<string, Choice[]>();
  const ids = new Map<number, number>([[pack(start), 0]]);
  const codes: number[] = [pack(start)];
  const worlds: World[] = [start];
  const cameFrom: number[] = [-1];
  const cameBy: string[] = [""];
  const from: number[] = [];
  const to: number[] = [];
  const fair: number[] = [];
  const pathTo = (id: number): string[] => {
    const path: string[] = [];
    for (let at = id; at > 0; at = cameFrom[at] ?? -1) path.unshift(cameBy[at] ?? "");
    return path;
  };
  for (let id = 0; id < worlds.length; id++) {
    const world = worlds[id] ?? start;
    let steps: Step[];
    try {
      steps = new Steps(world, rules, seen, only).list;
    } catch (error) {
      if (!(error instanceof Broken)) throw error;
      return { states: worlds.length, bad: error.message, path: [...pathTo(id), JSON.stringify(world)] };
    }
    for (const step of steps) {
      const code = packChange(codes[id] ?? 0, world, step.change);
      let next = ids.get(code);
      if (next === undefined) {
        next = worlds.push({ ...world, ...step.change }) - 1;
        codes.push(code);
        ids.set(code, next);
        cameFrom.push(id);
        cameBy.push(step.name);
      }
      if (step.fair && next !== id) {
        from.push(id);
        to.push(next);
        fair.push(step.fair);
      }
    }
  }
  for (const [regime, { keep }] of FAIR.entries()) {
    const ends = new Uint8Array(worlds.length);
    for (const [id, world] of worlds.entries()) if (isEnd(world, keep)) ends[id] = 1;
    for (let grown = true; grown; ) {
      grown = false;
      for (let edge = from.length - 1; edge >= 0; edge--) {
        if (!((fair[edge] ?? 0) & (1 << regime)) || !ends[to[edge] ?? 0] || ends[from[edge] ?? 0]) continue;
        ends[from[edge] ?? 0] = 1;
        grown = true;
      }
    }
    const stuck = ends.indexOf(0);
    if (stuck >= 0)
      return {
        states: worlds.length,
        bad: `no way to an end: ${JSON.stringify(FAIR[regime])}`,
        path: [...pathTo(stuck), JSON.stringify(worlds[stuck])],
      };
  }
  return { states: worlds.length, bad: undefined, path: [] };
}

const writing = (attempt: number, from: HandoverState, to: HandoverState) =>
  ({ do: "write", from: { attempt, state: from }, to: { attempt, state: to } }) as const;

/** Real rules, but for one view of the source. */
const source = (when: (view: SourceView, state: HandoverState | undefined) => SourceAction | undefined): Rules => ({
  ...REAL,
  source: (view) => {
    const action = when(view, stateOf(view.record, view.attempt));
    return action ? [action] : decideSource(view);
  },
});
const target = (when: (view: TargetView, state: HandoverState | undefined) => TargetAction | undefined): Rules => ({
  ...REAL,
  target: (view) => {
    const action = when(view, stateOf(view.record, view.attempt));
    return action ? [action] : decideTarget(view);
  },
});
/** Real rules, but the operator makes it this state. */
const operator = (when: (view: OperatorView, state: HandoverState | undefined) => HandoverState | undefined): Rules => ({
  ...REAL,
  operator: (view) => {
    const state = when(view, view.record?.state);
    return state && view.record ? writing(view.record.attempt, view.record.state, state) : decideOperator(view);
  },
});
const includes = (actions: readonly (SourceAction | TargetAction)[], what: string) =>
  actions.some((action) => action.do === what || ("note" in action && action.note === what));

const MUTATIONS: [name: string, harm: Harm, rules: Rules, start?: World][] = [
  [
    "the source resumes after Gone, because no answer came",
    "two run",
    source(({ note, qemu, link }, state) =>
      note === "Gone" && qemu === "complete" && link === "down" && state === "Handover" ? { do: "resume" } : undefined,
    ),
  ],
  [
    "the source resumes after Gone, because it does not know the record",
    "two run",
    source(({ note, qemu }, state) => (note === "Gone" && qemu === "complete" && !state ? { do: "resume" } : undefined)),
  ],
  [
    "the source destroys its copy at Target",
    "the source's copy is destroyed before the target has the guest",
    source(({ leftovers }, state) => (state === "Target" && leftovers ? { do: "destroy" } : undefined)),
  ],
  [
    "QEMU may pause before Handover is stored",
    "paused before it was stored",
    source(({ qemu, wants, note }, state) =>
      state === "Copying" && note === "none" && qemu === "copying" && wants === "switch" ? { do: "allowPause" } : undefined,
    ),
  ],
  [
    "the source gives up without a note",
    "two run",
    source((view, state) =>
      state === "Handover" && includes(decideSource(view), "GivingUp") ? writing(view.attempt, state, "Source") : undefined,
    ),
  ],
  [
    "the source notes that it gives up while the switchover is under way",
    "memory is lost though nothing died",
    source(({ qemu, note, wants }) =>
      qemu === "held" && note === "none" && wants === "out" ? { do: "note", note: "GivingUp" } : undefined,
    ),
  ],
  [
    "the source notes Gone before it is complete",
    "a stale target runs",
    {
      ...REAL,
      source: (view) => {
        const actions = decideSource(view);
        return includes(actions, "finish") ? [...actions, { do: "note", note: "Gone" }] : actions;
      },
    },
  ],
  [
    "the source leaves it to the link alone to say that it has gone",
    "no way to an end",
    { ...REAL, source: (view) => decideSource(view).filter((action) => action.do !== "write" || action.to.state !== "Target") },
  ],
  [
    "the target gives back without a note",
    "two run",
    target((view, state) =>
      state === "Handover" && includes(decideTarget(view), "Refusing") ? writing(view.attempt, state, "Source") : undefined,
    ),
  ],
  [
    "the target obeys a go after it refused",
    "two run",
    target(({ go, note, qemu }, state) =>
      go && note === "Refusing" && qemu === "complete" && state !== "Source" ? { do: "note", note: "Ran" } : undefined,
    ),
  ],
  [
    "the target runs without a note",
    "a stale source runs",
    target((view) => (includes(decideTarget(view), "Ran") ? { do: "resume" } : undefined)),
  ],
  [
    "the target ends its QEMU before its give-back is stored",
    "a complete copy is destroyed before it was given back",
    target(({ note, qemu, leftovers }, state) =>
      note === "Refusing" && state === "Handover" && qemu !== "gone" && leftovers ? { do: "destroy" } : undefined,
    ),
  ],
  [
    "the target gives a complete copy back when the record says Target",
    "two run",
    target(({ attempt, note, qemu, wantsOut }, state) =>
      note === "none" && state === "Target" && qemu === "complete" && wantsOut ? writing(attempt, "Target", "Source") : undefined,
    ),
  ],
  [
    "the target says Done while pages are missing",
    "memory is lost though nothing died",
    target(({ attempt, note, qemu, missing }, state) =>
      note === "Ran" && state === "Target" && qemu === "running" && missing ? writing(attempt, state, "Done") : undefined,
    ),
  ],
  [
    "the target never gives back what died before it ran",
    "no way to an end",
    { ...REAL, target: (view) => decideTarget(view).filter((action) => action.do !== "write" || action.to.state !== "Source") },
  ],
  [
    "the operator starts the target because the source is fenced",
    "a stale target runs",
    operator((view, state) => (state === "Handover" && view.source === "dead" && view.target === "alive" ? "Target" : undefined)),
  ],
  [
    "the operator gives up because the target is fenced",
    "a stale source runs",
    operator((view, state) => (state === "Handover" && view.target === "dead" ? "Source" : undefined)),
  ],
  [
    "the operator cancels in Handover",
    "two run",
    operator((view, state) => (state === "Handover" && view.giveUp ? "Source" : undefined)),
  ],
  [
    "the operator takes silence for death",
    "two run",
    { ...REAL, operator: (view) => decideOperator({ ...view, target: view.target === "silent" ? "dead" : view.target }) },
  ],
  [
    "the operator itself keeps the source while the target lives",
    "two run",
    operator((view, state) =>
      state === "Handover" && view.source === "dead" && view.target === "alive" && view.keep === "Source" ? "Source" : undefined,
    ),
  ],
  [
    "the operator says Done for a target that is dead, because the user keeps it",
    "the last copy is destroyed",
    operator((view, state) => (state === "Target" && view.target === "dead" && view.keep === "Target" ? "Done" : undefined)),
  ],
  ["nobody asks the user", "no way to an end", { ...REAL, operator: (view) => decideOperator({ ...view, keep: undefined }) }],
  [
    "attempts are not compared",
    "two run",
    {
      source: (view) => decideSource({ ...view, record: view.record && { ...view.record, attempt: view.attempt } }),
      target: (view) => decideTarget({ ...view, record: view.record && { ...view.record, attempt: view.attempt } }),
      operator: decideOperator,
      attempts: false,
    },
    { ...START, attempt: 2, sAttempt: 2, tAttempt: 2, net: 1 },
  ],
];

describe("who may run the guest", () => {
  test("in every order of events one copy at most runs, none is stale, and there is a way to an end", {
    timeout: 180_000,
  }, () => {
    const { states, bad, path } = explore(REAL);
    expect({ bad, path }).toEqual({ bad: undefined, path: [] });
    expect(states).toBeGreaterThan(100_000); // fewer: the walk has lost something
  });

  test.each(MUTATIONS)("found out: %s", { timeout: 180_000 }, (_, harm, rules, start) => {
    const { bad } = explore(rules, harm, start);
    expect(bad).toContain(harm);
  });

  test("nothing is asked of the API between the pause and the run of the guest", () => {
    const record = { attempt: 1, state: "Handover" } as const;
    const pausing = { attempt: 1, record, owes: false, note: "none", link: "up", wants: "switch", leftovers: true } as const;
    expect(decideSource({ ...pausing, qemu: "held" })).toEqual([{ do: "finish" }]);
    expect(decideSource({ ...pausing, qemu: "complete" })).toEqual([{ do: "note", note: "Gone" }]);
    expect(decideSource({ ...pausing, qemu: "complete", note: "Gone" })).toEqual([{ do: "sendGo" }]);
    // The target need not even have read that it is Handover.
    const waiting = { attempt: 1, record: undefined, missing: false, go: true, wantsOut: false, sourceEnded: false } as const;
    const ready = { ...waiting, keep: undefined, leftovers: true, qemu: "complete" } as const;
    expect(decideTarget({ ...ready, note: "none" })).toEqual([{ do: "note", note: "Ran" }]);
    expect(decideTarget({ ...ready, note: "Ran" })).toEqual([{ do: "resume" }]);
    expect(decideTarget({ ...ready, record, qemu: "running", note: "Ran" })).toEqual([
      { do: "write", from: record, to: { attempt: 1, state: "Done" } },
    ]);
  });
});
