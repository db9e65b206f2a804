/** Where a move is held until the fault strikes: by its own limit while it copies, by a checkpoint of the agents at a step. */
import type { Migration } from "../../crds/migration.ts";
import { eventually, get } from "../kit/cluster.ts";
import { inNode } from "../lab/index.ts";
import type { Victim } from "./faults.ts";

/** Where the lab's agents look for what holds them (chart value dev.checkpoints). */
const DIRECTORY = "/var/lib/drover/checkpoints";

interface Checkpoint {
  side: "source" | "target";
  step: string;
}

export interface Phase {
  name: string;
  /** The agent that stops at this step, and stays until it is let go. */
  checkpoint?: Checkpoint;
  /** Where no checkpoint holds it: it is in the phase once this is so, until it would take this step; about so much is copied. */
  copying?: { begun: (now: Migration) => boolean; end: Checkpoint; mib: number };
  /** What the record must say then, and whose guest must run, by the word of the QEMUs themselves. */
  record: readonly string[];
  /** The instance is stopped, and only its disks move. */
  cold?: true;
  runs: "source" | "target" | "nobody";
}

const copied = (now: Migration, what: "diskCounters" | "memoryCounters"): boolean => {
  const counters = now.status?.source?.[what];
  return counters !== undefined && counters.doneBytes > 0;
};

const source = (step: string): { checkpoint: Checkpoint } => ({ checkpoint: { side: "source", step } });
const target = (step: string): { checkpoint: Checkpoint } => ({ checkpoint: { side: "target", step } });

const COPYING = { record: ["Copying"], runs: "source" } as const;
const STANDING = { record: ["Handover"], runs: "nobody" } as const;

export const phases: readonly Phase[] = [
  { name: "Preparing", ...target("ready"), ...COPYING },
  {
    name: "CopyingDisk",
    copying: {
      begun: (now) => now.status?.phase === "CopyingDisk" && copied(now, "diskCounters"),
      end: { side: "source", step: "copy-memory" },
      mib: 90,
    },
    ...COPYING,
  },
  {
    name: "CopyingMemory",
    copying: {
      begun: (now) => now.status?.phase === "CopyingMemory" && copied(now, "memoryCounters"),
      end: { side: "source", step: "write-handover" },
      mib: 150,
    },
    ...COPYING,
  },
  { name: "before Handover", ...source("write-handover"), ...COPYING },
  { name: "guest paused", ...source("held"), ...STANDING },
  { name: "all state sent", ...source("complete"), ...STANDING },
  { name: "source gone", ...source("go"), ...STANDING },
  // A source that hears nothing for two seconds says by the record that it is gone.
  { name: "target may run", ...target("resume"), record: ["Handover", "Target"], runs: "nobody" },
  { name: "target runs", ...target("write-done"), record: ["Handover", "Target"], runs: "target" },
  { name: "releasing", ...source("release"), record: ["Done"], runs: "target" },
];

/** The one phase of a cold move that takes long. */
export const coldPhase: Phase = {
  name: "cold, copying",
  cold: true,
  copying: {
    begun: (now) => now.status?.phase === "CopyingDisk" && copied(now, "diskCounters"),
    end: { side: "source", step: "copy-memory" },
    // Holes count against its rate.
    mib: 250,
  },
  record: ["Copying"],
  runs: "nobody",
};

/** Where it is held, or would stop after it. */
const stopOf = (phase: Phase): Checkpoint | undefined => phase.checkpoint ?? phase.copying?.end;
const nodeOf = ({ side }: Checkpoint, victim: Victim): string => (side === "target" ? victim.target : victim.source);
const fileOf = ({ side, step }: Checkpoint, end: "hold" | "reached"): string => `${DIRECTORY}/${side}.${step}.${end}`;

/** Makes ready to hold a move in a phase; before it is applied. */
export const arm = async (phase: Phase, victim: Victim): Promise<void> => {
  for (const node of [victim.source, victim.target]) {
    await inNode(node, "mkdir", ["-p", DIRECTORY]);
    await inNode(node, "sh", ["-c", 'rm -f "$0"/*', DIRECTORY]);
  }
  const stop = stopOf(phase);
  if (stop !== undefined) await inNode(nodeOf(stop, victim), "touch", [fileOf(stop, "hold")]);
};

const isAt = (stop: Checkpoint, victim: Victim): Promise<boolean> =>
  inNode(nodeOf(stop, victim), "test", ["-e", fileOf(stop, "reached")]).then(
    () => true,
    () => false,
  );

/** Whether it is in the phase still: it has not come to the step that ends it. Of a node without power nobody can say. */
export const isStillIn = async ({ checkpoint, copying }: Phase, victim: Victim): Promise<boolean> => {
  if (checkpoint !== undefined) return isAt(checkpoint, victim);
  return copying === undefined || !(await isAt(copying.end, victim));
};

/** Resolves with the Migration as it is when the move is held in the phase; throws when it has gone past it. */
export const reached = async (
  phase: Phase,
  victim: Victim,
  migration: { namespace: string; name: string },
): Promise<Migration> => {
  let last: Migration | undefined;
  try {
    return await eventually(
      async () => {
        const now = (last = await get<Migration>(`dmig/${migration.name}`, migration.namespace));
        if (OVER.has(now.status?.phase ?? "")) return undefined;
        if (phase.copying !== undefined) return phase.copying.begun(now) ? now : undefined;
        // A record that was read before the step was reached is an old one.
        if (!(await isStillIn(phase, victim))) return undefined;
        return get<Migration>(`dmig/${migration.name}`, migration.namespace);
      },
      120,
      `the move is held in ${phase.name}`,
    );
  } catch (cause) {
    const { phase: seen, reason, conditions } = last?.status ?? {};
    const words = conditions?.find(({ type }) => type === "Ready")?.message;
    throw new Error(`the move is not held in ${phase.name}: ${seen} (${reason}): ${words}`, { cause });
  }
};

const OVER: ReadonlySet<string> = new Set(["Succeeded", "Failed", "Cancelled"]);

/** Lets a held move go on. */
export const release = async (victim: Victim): Promise<void> => {
  for (const node of [victim.source, victim.target])
    await inNode(node, "sh", ["-c", 'rm -f "$0"/*.hold', DIRECTORY]).catch(() => undefined);
};
