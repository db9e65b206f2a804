/** Which processes of an instance there are while one takes over from the other: from notes, /proc and the claim's cgroup. */
import { isAlive, processNow, type ProcessId } from "../../../ovs/process.ts";
import type { InstanceNote } from "../../driver.ts";
import { updateRun, type QemuContext, type Run } from "../context.ts";
import { checkUid } from "../notes.ts";
import { findProcess } from "../process.ts";

export type Next = NonNullable<Run["next"]>;

export interface Both {
  note: InstanceNote | undefined;
  run: Run | undefined;
  /** The one that the note says runs the guest. */
  process: ProcessId | undefined;
  /** The one that is to take over. */
  next: ProcessId | undefined;
  /** The one that was taken over from. */
  previous: ProcessId | undefined;
}

export async function lookAtBoth(context: QemuContext, instanceUid: string): Promise<Both> {
  const note = await context.notes.read(checkUid(instanceUid));
  const run = note?.run;
  if (run === undefined) return { note, run, process: undefined, next: undefined, previous: undefined };
  const { previous } = run;
  const [process, next, before] = await Promise.all([
    run.exit === undefined ? findProcess(run, context.cgroups) : undefined,
    findNext(context, run),
    previous && living({ pid: previous.pid, start: previous.pidStart }),
  ]);
  return { note, run, process, next, previous: before };
}

/** The noted one, else whoever is in the claim's cgroup beside the guest's own: an agent may have died before it could note it. */
async function findNext(context: QemuContext, run: Run): Promise<ProcessId | undefined> {
  const { next } = run;
  if (next === undefined) return undefined;
  if (next.pid !== undefined && next.pidStart !== undefined) return living({ pid: next.pid, start: next.pidStart });
  if (run.pid === undefined) return undefined;
  const others = (await context.cgroups.processes(run.claimUid)).filter((pid) => pid !== run.pid);
  for (const pid of others) {
    const found = await processNow(pid);
    if (found !== undefined) return found;
  }
  return undefined;
}

const living = async (id: ProcessId): Promise<ProcessId | undefined> => ((await isAlive(id)) ? id : undefined);

/** Changes what is noted of the one that is to take over, if that is still this one. */
export const updateNext = (context: QemuContext, instanceUid: string, run: Run, change: (next: Next) => Next): Promise<void> =>
  updateRun(context, instanceUid, run, (before) => (before.next ? { ...before, next: change(before.next) } : before));

/** The note says from here on that the new one runs the guest. May be repeated. */
export async function noteTaken(context: QemuContext, instanceUid: string, run: Run): Promise<void> {
  const { next } = run;
  if (next?.pid === undefined || next.pidStart === undefined || run.pid === undefined || run.pidStart === undefined) return;
  const { pid, pidStart, runtimeVersion, qemuVersion } = next;
  const oomKillsBefore = (await context.cgroups.oomKills(run.claimUid)) ?? run.oomKillsBefore;
  await updateRun(context, instanceUid, run, (before) => {
    if (before.next === undefined || before.pid === undefined || before.pidStart === undefined) return before;
    const { next: _, exit: __, qemuVersion: ___, ...rest } = before;
    return {
      ...rest,
      pid,
      pidStart,
      runtimeVersion,
      ...(qemuVersion === undefined ? {} : { qemuVersion }),
      oomKillsBefore,
      previous: { pid: before.pid, pidStart: before.pidStart, runtimeVersion: before.runtimeVersion },
    };
  });
  const child = context.children.get(nextKey(instanceUid));
  if (child !== undefined) context.children.set(instanceUid, child);
  context.children.delete(nextKey(instanceUid));
}

/** Of the one that is to take over, among the agent's children. */
export const nextKey = (instanceUid: string): string => `${instanceUid}/next`;
