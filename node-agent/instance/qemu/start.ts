/** From a plan to a running QEMU; or to nothing at all, with QEMU's words. */
import { errorText, UserError } from "../../errors.ts";
import { processNow } from "../../ovs/process.ts";
import type { MachinePlan } from "../driver.ts";
import { checkPlan } from "./checks.ts";
import { DEADLINE, readStderr, timestamp, updateRun, type QemuContext, type Run } from "./context.ts";
import { lastWords } from "./exit.ts";
import { launch, type Launched } from "./launcher.ts";
import { goneWithin, identify, kill } from "./process.ts";
import { queryVersion } from "./qmp/commands.ts";
import type { QmpSession } from "./qmp/session.ts";
import { within } from "./within.ts";

/**
 * Starts QEMU (with a guest, or to wait for one that moves here) and waits until it answers. Throws UserError with the words of whatever refused, or the signal's reason;
 * nothing runs then, and the note is as it was: an earlier run's machine is not forgotten for a start that failed.
 */
export async function startMachine(
  context: QemuContext,
  wanted: MachinePlan,
  signal: AbortSignal,
  { incoming = false }: { incoming?: boolean } = {},
): Promise<{ pid: number }> {
  const { clock, cgroups, notes, log } = context;
  const plan = await checkPlan(wanted, context.paths);
  const { instanceUid, claimUid, machineType, cpuModel, accelerator, runtimeVersion } = plan;
  const cgroup = await cgroups.wait(claimUid, { deadlineMs: DEADLINE.cgroup, clock, signal });
  const run: Run = {
    claimUid,
    machineType,
    cpuModel,
    accelerator,
    runtimeVersion,
    bootId: await context.bootId(),
    startedAt: timestamp(clock),
    oomKillsBefore: (await cgroups.oomKills(claimUid)) ?? 0,
    ...(incoming ? { incoming: {} } : {}),
  };
  // noted before it exists: whatever dies next, the next agent knows in which cgroup to look for it
  const previous = (await notes.read(instanceUid))?.run;
  await notes.update(instanceUid, (note) => ({ ...note, run }));
  let launched: Launched | undefined;
  try {
    launched = await launch(plan, {
      paths: context.paths,
      cgroupRoot: context.cgroupRoot,
      cgroup,
      incoming,
      trace: context.trace,
    });
    context.children.set(instanceUid, launched);
    await within(launched.entered, DEADLINE.enter, clock, signal);
    const session = await greeting(context, instanceUid, launched, signal);
    const qemuVersion = await queryVersion(session);
    const process = await identify(launched.pid);
    await updateRun(context, instanceUid, run, (before) => ({ ...before, ...process, qemuVersion }));
    log.info({ instance: `${plan.namespace}/${plan.name}`, pid: launched.pid, qemuVersion }, "QEMU runs");
    return { pid: launched.pid };
  } catch (cause) {
    if (launched) await undo(context, launched);
    await notes.update(instanceUid, (note) => {
      const { run: _, ...rest } = note;
      return previous ? { ...rest, run: previous } : rest;
    });
    if (signal.aborted) throw cause;
    if (((await cgroups.oomKills(claimUid)) ?? 0) > run.oomKillsBefore) {
      throw new UserError("MemoryLimit", "the kernel ended QEMU at the memory limit of its claim while it started", { cause });
    }
    const words = lastWords(await readStderr(context, instanceUid));
    throw new UserError("QemuFailed", `QEMU does not start: ${words || errorText(cause)}`, { cause });
  }
}

/** Its monitor, or the news that it has ended instead. */
async function greeting(context: QemuContext, instanceUid: string, launched: Launched, signal: AbortSignal): Promise<QmpSession> {
  const ended = launched.ended.then(({ code, signal: by }) => {
    throw new Error(`QEMU ended with ${by ?? `exit code ${code}`}`);
  });
  const session = context.monitors.session(instanceUid, DEADLINE.start);
  return within(Promise.race([session, ended]), DEADLINE.start, context.clock, signal);
}

async function undo(context: QemuContext, launched: Launched): Promise<void> {
  const process = await processNow(launched.pid);
  if (!process) return;
  await kill(process);
  if (!(await goneWithin(process, DEADLINE.kill, context.clock))) {
    throw new Error(`process ${launched.pid} does not end, not even by SIGKILL: it hangs in the kernel`);
  }
}
