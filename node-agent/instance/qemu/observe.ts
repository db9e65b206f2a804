/** What is true of a guest, from its process, its cgroup and its monitor. Notes an end when it sees one. */
import { errorText } from "../../errors.ts";
import { argumentsOf, isAlive, type ProcessId } from "../../ovs/process.ts";
import type { ExitReason, GuestExit, InstanceNote, Observed } from "../driver.ts";
import { GUEST_AGENT } from "./command-line.ts";
import { DEADLINE, readStderr, timestamp, updateRun, type QemuContext, type Run } from "./context.ts";
import { updateBlockers } from "./in-place/blockers.ts";
import { judgeExit, type Judgement } from "./exit.ts";
import { queryMigrate } from "./move/commands.ts";
import { findProcess, goneWithin, kill } from "./process.ts";
import { isPortOpen, queryStatus, quit } from "./qmp/commands.ts";
import { within } from "./within.ts";

/** Ends that only a process that has run can have. */
const HAS_RUN: ReadonlySet<ExitReason> = new Set(["MemoryLimit", "Crashed", "Killed"]);

export async function observe(context: QemuContext, instanceUid: string): Promise<Observed> {
  const note = await context.notes.read(instanceUid);
  const run = note?.run;
  if (!run) return { state: "absent", ...(note ? { note } : {}) };
  // its monitor belongs to whoever starts it, until that has succeeded or failed
  if (context.starting.has(instanceUid)) return { state: "starting", claimUid: run.claimUid, note };
  const process = await findProcess(run, context.cgroups);
  if (run.exit) {
    // an agent that died between noting the end and ending QEMU
    if (process) await endProcess(context, instanceUid, process);
    return exited(note, run, run.exit);
  }
  return process ? observeProcess(context, note, run, process) : observeGone(context, note, run);
}

/** Ends QEMU: asks it to quit, then kills it. Throws when even that does not end it in time. May be repeated. */
export async function endProcess(context: QemuContext, instanceUid: string, process: ProcessId): Promise<void> {
  const { clock, monitors, log } = context;
  try {
    await quit(await monitors.session(instanceUid, DEADLINE.quit), DEADLINE.quit);
    if (await goneWithin(process, DEADLINE.quit, clock)) return;
  } catch (error) {
    if (!(await isAlive(process))) return;
    log.warn({ instanceUid, pid: process.pid, error: errorText(error) }, "QEMU does not quit, so it is killed");
  }
  await kill(process);
  if (!(await goneWithin(process, DEADLINE.kill, clock))) {
    throw new Error(
      `QEMU's process ${process.pid} does not end, not even by SIGKILL: it hangs in the kernel, most likely on its disk`,
    );
  }
}

async function observeProcess(context: QemuContext, note: InstanceNote, run: Run, process: ProcessId): Promise<Observed> {
  const { instanceUid } = note;
  let status: Awaited<ReturnType<typeof queryStatus>>;
  let guestAgentOpen: boolean;
  let blockers: string[];
  try {
    const session = await context.monitors.session(instanceUid, DEADLINE.ask);
    status = await queryStatus(session);
    guestAgentOpen = await isPortOpen(session, GUEST_AGENT);
    blockers = status.running ? ((await queryMigrate(session))["blocked-reasons"] ?? []) : [];
  } catch (error) {
    return observeSilent(context, note, run, process, error);
  }
  const end = endedInside(status.status, run);
  if (end) {
    const exit = await noteExit(context, instanceUid, run, end);
    await endProcess(context, instanceUid, process);
    return exited(note, run, exit);
  }
  if (run.incoming && run.incoming.resumed !== true && status.running) {
    // an agent that died between letting it run and noting that
    await updateRun(context, instanceUid, run, (before) => ({ ...before, incoming: { ...before.incoming, resumed: true } }));
  }
  if (run.pid === undefined)
    await updateRun(context, instanceUid, run, (before) => ({ ...before, pid: process.pid, pidStart: process.start }));
  return {
    state: status.running ? "running" : "paused",
    pid: process.pid,
    claimUid: run.claimUid,
    note,
    runState: status.status,
    guestAgentOpen,
    ...(status.running ? { blockers, updateBlockers: await ownUpdateBlockers(run, process, blockers) } : {}),
  };
}

async function ownUpdateBlockers(run: Run, { pid }: ProcessId, blockers: readonly string[]): Promise<string[]> {
  return updateBlockers({ qemuVersion: run.qemuVersion, args: await argumentsOf(pid), blockers });
}

/** Its monitor does not answer: it ends right now, begins right now, or hangs. The last two are not failures. */
async function observeSilent(
  context: QemuContext,
  note: InstanceNote,
  run: Run,
  process: ProcessId,
  error: unknown,
): Promise<Observed> {
  if (await goneWithin(process, 100, context.clock)) return observeGone(context, note, run);
  context.log.debug({ instanceUid: note.instanceUid, error: errorText(error) }, "QEMU's monitor does not answer");
  const seen = { pid: process.pid, claimUid: run.claimUid, note };
  return run.pid === undefined ? { state: "starting", ...seen } : { state: "running", ...seen, runState: "not-answering" };
}

async function observeGone(context: QemuContext, note: InstanceNote, run: Run): Promise<Observed> {
  const { instanceUid } = note;
  // another process has taken the guest over since the note was read
  const now = (await context.notes.read(instanceUid))?.run;
  if (now?.pid !== run.pid) return observe(context, instanceUid);
  if (run.incoming && run.incoming.resumed !== true) return { state: "absent", note };
  const child = context.children.get(instanceUid);
  const ours = child !== undefined && child.pid === run.pid;
  const verdict = judgeExit({
    run,
    bootId: await context.bootId(),
    oomKills: await context.cgroups.oomKills(run.claimUid),
    end: ours ? await within(child.ended, DEADLINE.closeToEnd, context.clock).catch(() => undefined) : undefined,
    stderr: await readStderr(context, instanceUid),
  });
  // an agent that died before QEMU had begun: nothing has run that could have ended
  if (run.pid === undefined && !HAS_RUN.has(verdict.reason)) return { state: "absent", note };
  return exited(note, run, await noteExit(context, instanceUid, run, verdict));
}

/** QEMU is told to wait when its guest has ended, so that even an agent that was away learns why. Pure. */
function endedInside(status: string, run: Run): Judgement | undefined {
  switch (status) {
    case "shutdown":
      return run.stopAskedAt === undefined
        ? { reason: "GuestShutdown", message: "the guest has shut itself down" }
        : { reason: "Stopped", message: "the guest has shut down as asked" };
    case "guest-panicked":
      return { reason: "GuestPanicked", message: "the guest's kernel has panicked; its console tells more" };
    case "internal-error":
      return { reason: "Crashed", message: "QEMU cannot run the guest's CPUs any further (internal error)" };
    default:
      return undefined;
  }
}

async function noteExit(context: QemuContext, instanceUid: string, run: Run, verdict: Judgement): Promise<GuestExit> {
  const exit: GuestExit = { ...verdict, at: timestamp(context.clock) };
  await updateRun(context, instanceUid, run, (before) =>
    before.exit !== undefined || before.pid !== run.pid ? before : { ...before, exit },
  );
  context.log.info({ instanceUid, pid: run.pid, reason: exit.reason }, `guest ended: ${exit.message}`);
  return exit;
}

const exited = (note: InstanceNote, run: Run, exit: GuestExit): Observed => ({
  state: "exited",
  claimUid: run.claimUid,
  note: { ...note, run: { ...run, exit } },
  exit,
});
