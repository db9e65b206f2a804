/** All cases, in the order in which they run. */
import { controls } from "./control.ts";
import { faults, type Fault } from "./faults.ts";
import { coldPhase, phases, type Phase } from "./phases.ts";
import { runCase, type World } from "./run.ts";
import { CONTROL, type Outcome } from "./verdict.ts";

export interface Case {
  phase: string;
  fault: string;
  /** Throws only when the case itself cannot be done. */
  run: (world: World) => Promise<Outcome>;
}

const caseOf = (phase: Phase, fault: Fault): Case => ({
  phase: phase.name,
  fault: fault.name,
  run: (world) => runCase(phase, fault, world),
});

/** What can harm a move in which no QEMU runs and no port changes hands. */
const COLD: ReadonlySet<string> = new Set([
  "source agent killed",
  "target agent killed",
  "operator killed",
  "API server stopped 30 s",
  "link cut 15 s",
  "target pool full",
  "target node dead and fenced",
]);

export const cases: readonly Case[] = [
  ...controls.map((control) => ({ phase: CONTROL, ...control })),
  ...phases.flatMap((phase) => faults.map((fault) => caseOf(phase, fault))),
  ...faults.filter(({ name }) => COLD.has(name)).map((fault) => caseOf(coldPhase, fault)),
];
