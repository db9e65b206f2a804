import type { HandoverState } from "../../../crds/migration.ts";

export const REC = ["Copying", "Handover", "Target", "Done", "Source"] as const satisfies readonly HandoverState[];
const SQ = ["idle", "copying", "may", "held", "finishing", "complete", "owing", "gone"] as const; // may: allowed to pause
const TQ = ["fresh", "waiting", "complete", "part", "running", "filling", "gone", "none"] as const; // part: pages missing
const SN = ["none", "GivingUp", "Gone", "settled"] as const;
const TN = ["none", "Refusing", "Ran", "settled"] as const;
const LIFE = ["alive", "dead", "proven", "back"] as const;
const SDO = [
  "",
  "GivingUp",
  "Gone",
  "allowPause",
  "finish",
  "sendGo",
  "cancel",
  "resume",
  "bootAgain",
  "destroy",
  "settled",
] as const;
const TDO = ["", "Refusing", "Ran", "resume", "bootAgain", "destroy", "settled"] as const;
/** Writes on their way: C>H C>S H>T H>S H>D T>S T>D S>C(next attempt), and with ! those that a user decided. */
export const WRITES = ["C>H", "C>S", "H>T", "H>S", "H>D", "T>S", "T>D", "S>C", "H>T!", "H>S!", "T>S!", "T>D!"] as const;

/** All that the exploration knows of a move: what is stored, noted, running, and on its way. */
export interface World {
  attempt: 1 | 2;
  rec: HandoverState;
  /** Which of Handover (1) and Target (2) this attempt has been through: what a stale read may show. */
  past: number;
  writes: number;
  sLife: (typeof LIFE)[number];
  tLife: (typeof LIFE)[number];
  sAttempt: 1 | 2;
  tAttempt: 1 | 2;
  sNote: (typeof SN)[number];
  tNote: (typeof TN)[number];
  sq: (typeof SQ)[number];
  tq: (typeof TQ)[number];
  /** What each agent has decided and not done yet. */
  sDo: (typeof SDO)[number];
  tDo: (typeof TDO)[number];
  /** `go` of attempt 1 (1) and 2 (2) in the net. */
  net: number;
  go: boolean;
  sDestroyed: boolean;
  /** The source ran after the target had become complete. */
  ahead: boolean;
  /** The target ran in this attempt. */
  ran: boolean;
  /** A user decided which copy lives. */
  decided: boolean;
  /** A QEMU or a node died, or the target refused while post-copy may begin: only then may memory be lost. */
  hurt: boolean;
  /** QEMU paused without leave. */
  early: boolean;
}

/** A move whose source copies and whose target waits. */
export const START: World = {
  attempt: 1,
  rec: "Copying",
  past: 0,
  writes: 0,
  sLife: "alive",
  tLife: "alive",
  sAttempt: 1,
  tAttempt: 1,
  sNote: "none",
  tNote: "none",
  sq: "idle",
  tq: "fresh",
  sDo: "",
  tDo: "",
  net: 0,
  go: false,
  sDestroyed: false,
  ahead: false,
  ran: false,
  decided: false,
  hurt: false,
  early: false,
};
const FIELDS: { [K in keyof World]: readonly World[K][] } = {
  attempt: [1, 2],
  rec: REC,
  past: [0, 1, 2, 3],
  writes: Array.from({ length: 1 << WRITES.length }, (_, i) => i),
  sLife: LIFE,
  tLife: LIFE,
  sAttempt: [1, 2],
  tAttempt: [1, 2],
  sNote: SN,
  tNote: TN,
  sq: SQ,
  tq: TQ,
  sDo: SDO,
  tDo: TDO,
  net: [0, 1, 2, 3],
  go: [false, true],
  sDestroyed: [false, true],
  ahead: [false, true],
  ran: [false, true],
  decided: [false, true],
  hurt: [false, true],
  early: [false, true],
};
/** Where each field stands in a state's number: its values' indexes, times the weight of its place. */
const PLACES = new Map<string, Map<unknown, number>>();
let weight = 1;
for (const [key, values] of Object.entries(FIELDS)) {
  const place = weight;
  PLACES.set(key, new Map(values.map((value, i) => [value, i * place])));
  weight *= values.length; // stays below 2^53
}

/** What a field adds to a state's number. */
function digit(key: string, value: unknown): number {
  return PLACES.get(key)?.get(value) ?? Number.NaN;
}

/** A number for each state. */
export function pack(world: World): number {
  return Object.entries(world).reduce((code, [key, value]) => code + digit(key, value), 0);
}

/** The number of the state that a change leads to. */
export function packChange(code: number, world: World, change: Partial<World>): number {
  let next = code;
  for (const key in change) next += digit(key, change[key as keyof World]) - digit(key, world[key as keyof World]);
  return next;
}
