/** All cases, in the order in which they run. */
import { controls } from "./control.ts";
import { faults } from "./faults.ts";
import { phases } from "./phases.ts";
import { runCase, type World } from "./run.ts";
import { CONTROL, type Outcome } from "./verdict.ts";

export interface Case {
  phase: string;
  fault: string;
  /** Throws only when the case itself cannot be done. */
  run: (world: World) => Promise<Outcome>;
}

export const cases: readonly Case[] = [
  ...controls.map((control) => ({ phase: CONTROL, ...control })),
  ...phases.flatMap((phase) =>
    faults.map((fault) => ({ phase: phase.name, fault: fault.name, run: (world: World) => runCase(phase, fault, world) })),
  ),
];
