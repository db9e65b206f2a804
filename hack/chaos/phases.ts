/** Where a move is held until the fault strikes: by its own limit while it copies, by a checkpoint of the agents at a step. */
import type { Migration } from "../../crds/migration.ts";
import { eventually, get } from "../kit/cluster.ts";
import { inNode } from "../lab/index.ts";
import type { Victim } from "./faults.ts";

/** Where the lab's agents look for what holds them (chart value dev.checkpoints). */
const DIRECTORY = "/var/lib/drover/checkpoints";

export interface Phase {
  name: string;
  /** The agent that stops at this step, and stays until it is let go. */
  checkpoint?: { side: "source" | "target"; step: string };
  /** Where no checkpoint holds it: the move's own phase, long enough because its rate is limited. */
  until?: (now: Migration) => boolean;
}

const copied = (now: Migration, what: "diskCounters" | "memoryCounters"): boolean => {
  const counters = now.status?.source?.[what];
  return counters !== undefined && counters.doneBytes > 0;
};

export const phases: readonly Phase[] = [
  { name: "Preparing", checkpoint: { side: "target", step: "ready" } },
  { name: "CopyingDisk", until: (now) => now.status?.phase === "CopyingDisk" && copied(now, "diskCounters") },
  { name: "CopyingMemory", until: (now) => now.status?.phase === "CopyingMemory" && copied(now, "memoryCounters") },
  { name: "before Handover", checkpoint: { side: "source", step: "write-handover" } },
  { name: "guest paused", checkpoint: { side: "source", step: "held" } },
  { name: "all state sent", checkpoint: { side: "source", step: "complete" } },
  { name: "source gone", checkpoint: { side: "source", step: "go" } },
  { name: "target may run", checkpoint: { side: "target", step: "resume" } },
  { name: "target runs", checkpoint: { side: "target", step: "write-done" } },
  { name: "releasing", checkpoint: { side: "source", step: "release" } },
];

const nodeOf = (phase: Phase, victim: Victim): string => (phase.checkpoint?.side === "target" ? victim.target : victim.source);
const fileOf = ({ checkpoint }: Phase, end: "hold" | "reached"): string =>
  `${DIRECTORY}/${checkpoint?.side}.${checkpoint?.step}.${end}`;

/** Makes ready to hold a move in a phase; before it is applied. */
export const arm = async (phase: Phase, victim: Victim): Promise<void> => {
  for (const node of [victim.source, victim.target]) {
    await inNode(node, "mkdir", ["-p", DIRECTORY]);
    await inNode(node, "sh", ["-c", 'rm -f "$0"/*', DIRECTORY]);
  }
  if (phase.checkpoint !== undefined) await inNode(nodeOf(phase, victim), "touch", [fileOf(phase, "hold")]);
};

/** Resolves when the move is held in the phase; throws when it has gone past it. */
export const reached = async (phase: Phase, victim: Victim, migration: { namespace: string; name: string }): Promise<void> => {
  await eventually(
    async () => {
      const now = await get<Migration>(`dmig/${migration.name}`, migration.namespace);
      const { phase: seen, reason } = now.status ?? {};
      if (seen === "Succeeded" || seen === "Failed" || seen === "Cancelled")
        throw new Error(`the move is over: ${seen} ${reason}`);
      if (phase.until !== undefined) return phase.until(now);
      return inNode(nodeOf(phase, victim), "test", ["-e", fileOf(phase, "reached")]).then(
        () => true,
        () => false,
      );
    },
    90,
    `the move is held in ${phase.name}`,
  );
};

/** Lets a held move go on. */
export const release = async (victim: Victim): Promise<void> => {
  for (const node of [victim.source, victim.target])
    await inNode(node, "sh", ["-c", 'rm -f "$0"/*.hold', DIRECTORY]).catch(() => undefined);
};
