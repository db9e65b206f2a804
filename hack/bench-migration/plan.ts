/** What is moved how often, and in which order. Pure. */

/** hand: straight to QEMU's monitors. stop: the guest stands still while it is copied. */
export type Way = "hand" | "drover" | "libvirt" | "stop";
/**
 * first: of a guest that was never moved. frozen: northd stands still for 4 s from the switchover on. steady: one after the other,
 * with nothing between them, when the agents have made many.
 */
export type Kind = "usual" | "first" | "frozen" | "steady";

export interface Case {
  name: string;
  memoryMib: number;
  /** Of which the guest has written, so that there is something to copy. */
  eatMib: number;
  /** MiB/s that it writes while it moves, over 48 MiB. */
  dirtyMibPerSecond: number;
}

const caseOf = (memoryMib: number, dirtyMibPerSecond: number): Case => ({
  name: `${memoryMib / 1024}g-${dirtyMibPerSecond > 0 ? "busy" : "idle"}`,
  memoryMib,
  eatMib: Math.round((memoryMib * 5) / 8),
  dirtyMibPerSecond,
});

export const DIRTY_MIB = 48;
export const CASES: readonly Case[] = [caseOf(1024, 0), caseOf(1024, 100), caseOf(2048, 0), caseOf(2048, 100)];

export interface Plan {
  cases: readonly Case[];
  ways: readonly Way[];
  /** Of each case by hand and by Drover. */
  moves: number;
  /** Of each case by the other ways. */
  otherMoves: number;
  /** Guests whose first move is measured. */
  first: number;
  frozen: number;
  /** Drover's alone, at the end. */
  steady: number;
  tls: boolean;
}

const WAYS: readonly Way[] = ["hand", "drover", "libvirt", "stop"];

/** Names of a list, with commas between them; all when nothing is said. Throws a sentence when one is unknown. */
export const picked = <T extends string>(text: string | undefined, all: readonly T[], variable: string): readonly T[] => {
  if (text === undefined || text === "") return all;
  return text.split(",").map((name) => {
    const found = all.find((one) => one === name);
    if (found === undefined) throw new Error(`${variable} names "${name}"; there is ${all.join(", ")}`);
    return found;
  });
};

/** A variable that is a whole number. Throws a sentence when it is none. */
export const count = (env: Record<string, string | undefined>, variable: string, usual: number): number => {
  const text = env[variable];
  if (text === undefined || text === "") return usual;
  const number = Number(text);
  if (!Number.isInteger(number) || number < 0) throw new Error(`${variable} is "${text}": give a whole number`);
  return number;
};

/** From CASES, WAYS, MOVES, OTHER_MOVES, FIRST, FROZEN, STEADY and TLS. Throws a sentence when one of them is not understood. */
export const planFrom = (env: Record<string, string | undefined>): Plan => {
  const names = picked(
    env["CASES"],
    CASES.map(({ name }) => name),
    "CASES",
  );
  const moves = count(env, "MOVES", 20);
  return {
    cases: CASES.filter(({ name }) => names.includes(name)),
    ways: picked(env["WAYS"], WAYS, "WAYS"),
    moves,
    otherMoves: count(env, "OTHER_MOVES", Math.min(5, moves)),
    first: count(env, "FIRST", Math.min(5, moves)),
    frozen: count(env, "FROZEN", Math.min(10, moves)),
    steady: count(env, "STEADY", Math.min(60, 3 * moves)),
    tls: env["TLS"] !== "0",
  };
};

/**
 * The ways of one case's moves, in turn, so that whatever else the machine does falls on all alike: who comes first changes
 * every round, and the rarer ways are spread over all rounds.
 */
export const turns = ({ ways, moves, otherMoves }: Plan): Way[] => {
  const usual = ways.filter((way) => way === "hand" || way === "drover");
  const rare = ways.filter((way) => way === "libvirt" || way === "stop");
  const rounds = Math.max(usual.length > 0 ? moves : 0, rare.length > 0 ? otherMoves : 0);
  const due = (round: number, total: number): boolean =>
    Math.floor(((round + 1) * total) / rounds) > Math.floor((round * total) / rounds);
  return Array.from({ length: rounds }, (_, round) => {
    const now = [...(due(round, moves) ? usual : []), ...(due(round, otherMoves) ? rare : [])];
    return round % 2 === 0 ? now : now.toReversed();
  }).flat();
};
