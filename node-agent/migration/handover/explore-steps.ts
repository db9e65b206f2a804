import type { Handover } from "../../../crds/migration.ts";
import { decideOperator, type NodeLife, type OperatorView } from "../../../operator/migration/handover.ts";
import { ALWAYS, FAIR, fail, reads, sourceRuns, sourceView, targetRuns, targetView, up } from "./explore-views.ts";
import { REC, WRITES, type World } from "./explore-world.ts";
import { decideSource } from "./source.ts";
import { decideTarget } from "./target.ts";
import type { SourceAction, SourceView, TargetAction, TargetView } from "./types.ts";

/** What a mutation may replace. */
export interface Rules {
  source: (view: SourceView) => SourceAction[];
  target: (view: TargetView) => TargetAction[];
  operator: typeof decideOperator;
  /** The executors, the channel and the API compare attempts. */
  attempts: boolean;
}
export const REAL: Rules = { source: decideSource, target: decideTarget, operator: decideOperator, attempts: true };

/** What must never be. */
export type Harm =
  | "two run"
  | "a stale source runs"
  | "a stale target runs"
  | "paused before it was stored"
  | "memory is lost though nothing died"
  | "the source's copy is destroyed before the target has the guest"
  | "a guest that runs at the target is destroyed"
  | "a complete copy is destroyed before it was given back"
  | "the last copy is destroyed"
  | "no way to an end";
export class Broken extends Error {}
export interface Choice {
  readonly from: Handover | undefined;
  readonly to: Handover | undefined;
  readonly what: string;
  readonly fair: number;
}
type Take = (from: Handover | undefined, to: Handover | undefined, what: string, fair: number) => void;
export interface Step {
  readonly name: string;
  readonly change: Partial<World>;
  readonly fair: number;
}

/** All that may happen next. `fair`: in which of the fair worlds it is sure to happen if nothing else does. */
export class Steps {
  readonly list: Step[] = [];
  readonly w: World;
  readonly rules: Rules;
  readonly seen: Map<string, Choice[]>;
  readonly only: Harm | undefined;
  constructor(w: World, rules: Rules, seen: Map<string, Choice[]>, only: Harm | undefined) {
    this.only = only;
    this.w = w;
    this.rules = rules;
    this.seen = seen;
    if (sourceRuns(w) && targetRuns(w)) this.broken("two run");
    if (["held", "finishing", "complete", "owing"].includes(w.sq) && !w.early && w.rec === "Copying")
      this.broken("paused before it was stored");
    this.api();
    this.operator();
    if (up(w.sLife)) this.source();
    if (up(w.tLife)) this.target();
    this.qemu();
    this.nodes();
  }

  /** Only the harm that is looked for ends the walk. */
  broken(harm: Harm): void {
    if (this.only === undefined || this.only === harm) throw new Broken(harm);
  }

  add(name: string, change: Partial<World>, fair = 0): void {
    this.list.push({ name, change, fair });
  }

  /** Writes land at any time, or never: one that nothing waits for any more may still be stored. */
  api(): void {
    const { w } = this;
    for (const [bit, name] of WRITES.entries()) {
      if (!(w.writes & (1 << bit)) || !name.startsWith(w.rec.charAt(0))) continue;
      const state = REC.find((each) => each.startsWith(name.charAt(2))) ?? fail(name);
      const writes = this.rules.attempts ? 0 : w.writes; // what tests a state that has passed can never land
      if (name === "S>C") {
        if (w.attempt === 2) continue;
        const sLife = up(w.sLife) ? "alive" : w.sLife; // back long since
        this.add("stored S>C", { sLife, attempt: 2, rec: "Copying", past: 0, writes, ran: false, ahead: false, decided: false });
      } else {
        const past = w.past | (state === "Handover" ? 1 : state === "Target" ? 2 : 0);
        this.add(`stored ${name}`, { rec: state, past, writes, decided: w.decided || name.endsWith("!") }, ALWAYS);
      }
    }
  }

  issue(who: string, from: Handover, to: Handover, fair: number, user = false): void {
    const { w } = this;
    if (from.attempt !== w.attempt && this.rules.attempts) return;
    const bit = WRITES.indexOf(`${from.state.charAt(0)}>${to.state.charAt(0)}${user ? "!" : ""}` as "C>H");
    if (bit < 0) fail(`${who} writes ${from.state} -> ${to.state}`);
    if (to.attempt > 2 || (from.state !== w.rec && this.rules.attempts)) return;
    this.add(`${who} sends ${WRITES[bit]}`, { writes: w.writes | (1 << bit) }, fair);
  }

  /** Many states look the same to one party: each of its views is decided once, each of its answers taken once. */
  memo(key: string, decide: (take: Take) => void): void {
    let choices = this.seen.get(key);
    if (!choices) {
      const found = new Map<string, Choice>();
      decide((from, to, what, fair) => {
        const name = `${what} ${from?.attempt}${from?.state}${to?.attempt}${to?.state}`;
        found.set(name, { from, to, what, fair: fair | (found.get(name)?.fair ?? 0) });
      });
      choices = [...found.values()];
      this.seen.set(key, choices);
    }
    const who = key.slice(0, key.indexOf(" "));
    for (const { from, to, what, fair } of choices) {
      if (from && to) this.issue(who, from, to, fair, what === "user");
      else if (who === "source") this.add(`source decides ${what}`, { sDo: what as World["sDo"] }, fair);
      else this.add(`target decides ${what}`, { tDo: what as World["tDo"] }, fair);
    }
  }

  operator(): void {
    const { w } = this;
    this.memo(
      `operator ${w.attempt} ${w.rec} ${w.sLife} ${w.tLife} ${w.sNote} ${w.sAttempt} ${w.sDestroyed} ${w.tNote} ${w.tAttempt} ${w.ran}`,
      (take) => this.operatorDecides(take),
    );
  }

  operatorDecides(take: Take): void {
    const { w } = this;
    const seen = (life: World["sLife"]): NodeLife[] =>
      (
        ({
          alive: ["alive", "silent"],
          dead: ["silent", "alive"],
          proven: ["dead", "silent"],
          back: ["alive", "silent", "dead"],
        }) as const
      )[life].slice();
    const record = { attempt: w.attempt, state: w.rec };
    const sourceSaid =
      w.sNote === "settled" ? ({ attempt: w.sAttempt, state: w.sDestroyed ? "Released" : "GivenUp" } as const) : undefined;
    const targetSaid =
      w.tNote === "settled"
        ? ({ attempt: w.tAttempt, state: w.rec === "Done" ? "Running" : "Released" } as const)
        : w.ran
          ? ({ attempt: w.tAttempt, state: "Running" } as const)
          : undefined;
    const decide = (view: Omit<OperatorView, "record">, fair: number): void => {
      const decision = this.rules.operator({ record, ...view });
      if (decision.do !== "write") return;
      const without = view.keep && this.rules.operator({ record, ...view, keep: undefined });
      take(decision.from, decision.to, without?.do === "needsDecision" ? "user" : "", fair);
    };
    for (const source of seen(w.sLife))
      for (const target of seen(w.tLife))
        for (const [giveUp, retry] of [
          [false, false],
          [true, false],
          [false, true],
        ] as const)
          for (const keep of [undefined, "Source", "Target"] as const)
            for (const heard of [true, false]) {
              const said = heard ? { sourceSaid, targetSaid } : { sourceSaid: undefined, targetSaid: undefined };
              decide({ giveUp, retry, source, target, keep, ...said }, 0);
            }
    const truth = (life: World["sLife"]): NodeLife => (life === "proven" ? "dead" : life === "dead" ? "silent" : "alive");
    for (const [i, { keep }] of FAIR.entries())
      decide(
        { giveUp: false, retry: false, source: truth(w.sLife), target: truth(w.tLife), keep, sourceSaid, targetSaid },
        1 << i,
      );
  }

  source(): void {
    const { w } = this;
    if (w.sDo) {
      this.add(`source does ${w.sDo}`, { ...this.sourceDoes(w.sDo), sDo: "" }, ALWAYS);
      this.add("source agent restarts", { sDo: "" });
      return;
    }
    if (w.sNote === "settled") {
      if (w.sq === "gone" && !w.sDestroyed) this.add("source boots as ever", this.resumed(), ALWAYS);
      if (w.attempt > w.sAttempt && w.sq === "idle")
        this.add("source takes up attempt 2", { sAttempt: 2, sNote: "none", sLife: "alive" }, ALWAYS);
      return;
    }
    const key = `source ${w.attempt} ${w.rec} ${w.past} ${w.sAttempt} ${w.sNote} ${w.sq} ${w.sDestroyed} ${up(w.tLife)} ${w.tq === "fresh"}`;
    this.memo(key, (choose) => this.sourceDecides(choose));
  }

  sourceDecides(choose: Take): void {
    const { w } = this;
    const take = (view: SourceView, fair: number): void => {
      for (const action of this.rules.source(view)) {
        if (action.do === "write") choose(action.from, action.to, "", fair);
        else choose(undefined, undefined, action.do === "note" ? action.note : action.do, fair);
      }
    };
    for (const record of reads(w, w.sAttempt))
      for (const link of ["up", "down"] as const)
        for (const wants of ["nothing", "switch", "out"] as const) take(sourceView(w, record, link, wants), 0);
    for (const [i, fair] of FAIR.entries()) {
      const link = up(w.tLife) ? fair.link : "down";
      const wants = link === "down" || (w.sq === "idle" && w.tq !== "fresh") ? "out" : fair.wants;
      take(sourceView(w, { attempt: w.attempt, state: w.rec }, link, wants), 1 << i);
    }
  }

  /** The source's CPUs run on from the switchover. */
  resumed(): Partial<World> {
    const { w } = this;
    if (w.ran && !w.decided) this.broken("a stale source runs");
    return { sq: "idle", early: false, ahead: w.ahead || w.tq === "complete" || w.tq === "part" };
  }

  sourceDoes(what: World["sDo"]): Partial<World> {
    const { w } = this;
    switch (what) {
      case "GivingUp":
      case "Gone":
        return { sNote: what };
      case "allowPause":
        return w.sq === "copying" ? { sq: "may" } : {};
      case "finish":
        return w.sq === "held" ? { sq: "finishing" } : {};
      case "sendGo":
        return { net: w.net | w.sAttempt };
      case "cancel":
        if (w.sq === "held" || w.sq === "finishing") return this.resumed();
        return w.sq === "copying" || w.sq === "may" ? { sq: "idle" } : {};
      case "resume":
        return w.sq === "complete" ? this.resumed() : {};
      case "bootAgain":
        if (!w.hurt && !w.decided) this.broken("memory is lost though nothing died");
        return this.resumed();
      case "destroy":
        if (w.tq === "none") this.broken("the last copy is destroyed");
        if (w.tNote !== "Ran" && !w.ran && !w.decided)
          this.broken("the source's copy is destroyed before the target has the guest");
        return { sq: "gone", sDestroyed: true, early: false };
      case "settled":
        return { sNote: "settled", ...(w.sq === "gone" && !w.sDestroyed ? this.resumed() : {}) };
      case "":
        break;
    }
    return {};
  }

  target(): void {
    const { w } = this;
    if (w.tNote !== "settled" && !w.go && (this.rules.attempts ? w.net & w.tAttempt : w.net))
      this.add("go arrives", { go: true }, ALWAYS & 7);
    if (w.tDo) {
      this.add(`target does ${w.tDo}`, { ...this.targetDoes(w.tDo), tDo: "" }, ALWAYS);
      this.add("target agent restarts", { tDo: "", go: false });
      return;
    }
    if (w.go) this.add("target agent restarts", { go: false });
    if (w.tNote === "settled") {
      if (w.tq === "gone") this.add("target boots as ever", this.started("running"), ALWAYS);
      if (w.attempt > w.tAttempt)
        this.add("target of attempt 2", { tAttempt: 2, tNote: "none", tq: "fresh", go: false, tLife: "alive" }, ALWAYS);
      return;
    }
    const key = `target ${w.attempt} ${w.rec} ${w.past} ${w.tAttempt} ${w.tNote} ${w.tq} ${w.go} ${w.sLife} ${w.sq === "gone"} ${w.sq === "idle"}`;
    this.memo(key, (choose) => this.targetDecides(choose));
  }

  targetDecides(choose: Take): void {
    const { w } = this;
    const take = (view: TargetView, fair: number): void => {
      for (const action of this.rules.target(view)) {
        if (action.do === "write") choose(action.from, action.to, "", fair);
        else choose(undefined, undefined, action.do === "note" ? action.note : action.do, fair);
      }
    };
    for (const record of reads(w, w.tAttempt))
      for (const wantsOut of [false, true])
        for (const keep of ["Source", "Target"] as const) take(targetView(w, record, wantsOut, keep), 0);
    for (const [i, fair] of FAIR.entries()) {
      const wantsOut = fair.link === "down" || w.sq === "gone" || w.sq === "idle";
      const keep = w.sLife === "proven" ? fair.keep : undefined;
      take(targetView(w, { attempt: w.attempt, state: w.rec }, wantsOut, keep), 1 << i);
    }
  }

  /** The target's CPUs run. */
  started(tq: "running" | "filling"): Partial<World> {
    const { w } = this;
    if (w.ahead && !w.decided) this.broken("a stale target runs");
    return { tq, ran: true };
  }

  targetDoes(what: World["tDo"]): Partial<World> {
    const { w } = this;
    switch (what) {
      case "Refusing":
        return { tNote: what, hurt: true };
      case "Ran":
        return { tNote: what };
      case "resume":
        return w.tq === "complete" ? this.started("running") : w.tq === "part" ? this.started("filling") : {};
      case "bootAgain":
        if (!w.hurt && !w.decided) this.broken("memory is lost though nothing died");
        return this.started("running");
      case "destroy":
        if (w.tAttempt === w.attempt) {
          if (w.tNote === "Ran" && !w.decided) this.broken("a guest that runs at the target is destroyed");
          if (w.sDestroyed) this.broken("the last copy is destroyed");
          if ((w.tq === "complete" || w.tq === "part") && w.rec !== "Source")
            this.broken("a complete copy is destroyed before it was given back");
        }
        return { tq: "none" };
      case "settled":
        return { tNote: "settled", ...(w.tq === "gone" ? this.started("running") : {}) };
      case "":
        break;
    }
    return {};
  }

  qemu(): void {
    const { w } = this;
    const both = up(w.sLife) && up(w.tLife);
    const switching = w.sq === "held" || w.sq === "finishing";
    if (
      both &&
      w.sAttempt === w.tAttempt &&
      w.attempt === w.sAttempt &&
      w.sNote === "none" &&
      !w.sDo &&
      w.sq === "idle" &&
      w.tq === "fresh"
    )
      this.add("memory is copied", { sq: "copying", tq: "waiting" }, 7);
    if (w.sq === "copying" || w.sq === "may") this.add("copying fails", { sq: "idle" });
    if (w.sq === "may") this.add("guest pauses", { sq: "held" }, ALWAYS);
    if (w.sq === "copying") this.add("guest pauses early", { sq: "held", early: true });
    if (switching) this.add("source sees a failure and resumes", this.resumed());
    if (both && w.sq === "finishing" && w.tq === "waiting") {
      this.add("all arrives", { tq: "complete" }, 7);
      this.add("all but pages arrives", { tq: "part" }, 7);
    }
    if (w.sq === "finishing" && w.tq === "complete") this.add("source completes", { sq: "complete" }, 7);
    if (w.sq === "finishing" && w.tq === "part") this.add("source owes pages", { sq: "owing" }, 7);
    if (both && w.sq === "owing") {
      if (w.tq === "part") this.add("pages arrive", { tq: "complete" }, ALWAYS);
      if (w.tq === "filling") this.add("pages arrive", { tq: "running" }, ALWAYS);
      if (w.tq === "complete" || w.tq === "running") this.add("source completes", { sq: "complete" }, ALWAYS);
    }
    if (w.sq !== "gone" && w.sNote !== "settled") this.add("source QEMU dies", { sq: "gone", hurt: true, early: false });
    if (w.tq !== "gone" && w.tq !== "none" && w.tNote !== "settled") this.add("target QEMU dies", { tq: "gone", hurt: true });
  }

  nodes(): void {
    const { w } = this;
    for (const bit of [1, 2]) if (w.net & bit) this.add("go is lost", { net: w.net & ~bit });
    if (w.sLife === "alive") this.add("source node dies", { sLife: "dead", sq: "gone", sDo: "", hurt: true, early: false });
    if (w.sLife === "dead") this.add("source node is fenced", { sLife: "proven" }, ALWAYS);
    if (w.sLife === "proven") this.add("source node comes back", { sLife: "back" });
    const tq = w.tq === "none" ? "none" : "gone";
    if (w.tLife === "alive") this.add("target node dies", { tLife: "dead", tq, tDo: "", go: false, hurt: true });
    if (w.tLife === "dead") this.add("target node is fenced", { tLife: "proven" }, ALWAYS);
    if (w.tLife === "proven") this.add("target node comes back", { tLife: "back" });
    if (w.tLife === "proven" && w.attempt > w.tAttempt)
      this.add("another target", { tLife: "alive", tAttempt: 2, tNote: "none", tq: "fresh", go: false }, ALWAYS);
  }
}
