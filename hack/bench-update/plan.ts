/** Which updates are measured, and in which order. Pure. */
import { count, picked } from "../bench-migration/plan.ts";

/** hand: straight to QEMU's monitors. */
export type Way = "hand" | "drover";
/** floor: nothing is done at all; what of a silence is not the update's. */
export type Kind = "usual" | "floor";

export interface Case {
  name: string;
  memoryMib: number;
  /** Of which the guest has written, so that it is there to be kept. */
  eatMib: number;
  /** MiB/s that it writes meanwhile. */
  dirtyMibPerSecond: number;
}

const caseOf = (name: string, memoryMib: number, dirtyMibPerSecond: number): Case => ({
  name,
  memoryMib,
  eatMib: Math.round(memoryMib / 2),
  dirtyMibPerSecond,
});

export const CASES: readonly Case[] = [
  caseOf("512m-idle", 512, 0),
  caseOf("512m-busy", 512, 100),
  caseOf("2g-idle", 2048, 0),
  caseOf("2g-busy", 2048, 100),
];

export interface Plan {
  cases: readonly Case[];
  ways: readonly Way[];
  /** Of each case in each way. */
  updates: number;
  /** Of each case in each way: how long nothing answers when nothing is done. */
  floors: number;
  /** Guests of one node that are rolled out; 0: none. */
  fleet: number;
}

const WAYS: readonly Way[] = ["hand", "drover"];

/** From CASES, WAYS, UPDATES and FLEET. Throws a sentence when one of them is not understood. */
export const planFrom = (env: Record<string, string | undefined>): Plan => {
  const names = picked(
    env["CASES"],
    CASES.map(({ name }) => name),
    "CASES",
  );
  const updates = count(env, "UPDATES", 10);
  return {
    cases: CASES.filter(({ name }) => names.includes(name)),
    ways: picked(env["WAYS"], WAYS, "WAYS"),
    updates,
    floors: Math.ceil(updates / 2),
    fleet: count(env, "FLEET", 20),
  };
};

/** In turn, so that whatever else the machine does falls on both alike; who comes first changes every round. */
export const turns = ({ ways, updates }: Plan): Way[] =>
  Array.from({ length: updates }, (_, round) => (round % 2 === 0 ? ways : ways.toReversed())).flat();
