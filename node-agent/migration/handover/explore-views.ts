import type { Handover, HandoverState } from "../../../crds/migration.ts";
import { REC, type World } from "./explore-world.ts";
import type { SourceView, TargetView } from "./types.ts";

export const fail = (what: string): never => {
  throw new Error(what);
};

export const up = (life: World["sLife"]) => life === "alive" || life === "back";
export const sourceRuns = (w: World) => w.sq === "idle" || w.sq === "copying" || w.sq === "may";
export const targetRuns = (w: World) => w.tq === "running" || w.tq === "filling";

/** The fair worlds from each of whose states an end must be in reach: what the executors want, the link, what a user would say. */
export const FAIR = [
  { link: "up", wants: "switch", keep: "Source" },
  { link: "up", wants: "switch", keep: "Target" },
  { link: "up", wants: "out", keep: "Source" },
  { link: "down", wants: "out", keep: "Source" },
  { link: "down", wants: "out", keep: "Target" },
] as const;
export const ALWAYS = (1 << FAIR.length) - 1;

/** Every record that an agent of this attempt may hold to be the present one. */
export function reads(w: World, attempt: 1 | 2): (Handover | undefined)[] {
  const older = REC.filter((state) => state !== "Done").map((state) => ({ attempt, state }));
  if (w.attempt > attempt) return [undefined, ...older, { attempt: w.attempt, state: w.rec }];
  const seen: HandoverState[] = ["Copying", w.rec];
  if (w.past & 1) seen.push("Handover");
  if (w.past & 2) seen.push("Target");
  return [undefined, ...[...new Set(seen)].map((state) => ({ attempt, state }))];
}

/** QEMU as the agents see it. */
const SOURCE_SEES: Record<World["sq"], SourceView["qemu"]> = {
  idle: "idle",
  copying: "copying",
  may: "copying",
  held: "held",
  finishing: "held",
  complete: "complete",
  owing: "complete",
  gone: "gone",
};
const TARGET_SEES: Record<World["tq"], TargetView["qemu"]> = {
  fresh: "waiting",
  waiting: "waiting",
  complete: "complete",
  part: "complete",
  running: "running",
  filling: "running",
  gone: "gone",
  none: "gone",
};

export function sourceView(w: World, record: Handover | undefined, link: "up" | "down", wants: SourceView["wants"]): SourceView {
  const note = w.sNote === "settled" ? fail("a settled source decides") : w.sNote;
  return {
    attempt: w.sAttempt,
    record,
    qemu: SOURCE_SEES[w.sq],
    owes: w.sq === "owing",
    note,
    link,
    wants,
    leftovers: !w.sDestroyed,
  };
}

export function targetView(w: World, record: Handover | undefined, wantsOut: boolean, keep: TargetView["keep"]): TargetView {
  const note = w.tNote === "settled" ? fail("a settled target decides") : w.tNote;
  const missing = w.tq === "part" || w.tq === "filling";
  const sourceEnded = up(w.sLife) && (w.sq === "gone" || w.sq === "idle");
  return {
    attempt: w.tAttempt,
    record,
    qemu: TARGET_SEES[w.tq],
    missing,
    note,
    go: w.go,
    wantsOut,
    sourceEnded,
    keep,
    leftovers: w.tq !== "none",
  };
}
