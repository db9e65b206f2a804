/** The QEMU that is to take a guest over: from nothing to one that waits for the guest's memory; or to nothing again. */
import { watch } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { sleep } from "../../../../kube/clock.ts";
import { errorCode, errorText, UserError } from "../../../errors.ts";
import type { ProcessId } from "../../../ovs/process.ts";
import { exists } from "../../../pool/files.ts";
import type { MachinePlan } from "../../driver.ts";
import { DEADLINE, timestamp, updateRun, type QemuContext, type Run } from "../context.ts";
import { lastWords } from "../exit.ts";
import { isListening } from "../listening.ts";
import { launch, nextName, stderrFile, type Launched } from "../launcher.ts";
import { goneWithin, identify, kill } from "../process.ts";
import { within } from "../within.ts";
import { makeSockets, removeNames, socketsOf } from "./names.ts";
import { lookAtBoth, nextKey, updateNext, type Next } from "./view.ts";

/** The socket, as the new one sees it. */
const IN_SANDBOX = "/sockets/cpr";
const LISTEN_LOOK_MS = 2;

/**
 * Resolves when it waits. Throws UserError with its own words, or the signal's reason; nothing of it is left then. What is wrong with its
 * machine shows only later: it makes that when it has the memory.
 */
export async function startNext(
  context: QemuContext,
  { machine, run, from }: { machine: MachinePlan; run: Run; from: ProcessId },
  signal: AbortSignal,
): Promise<void> {
  const { paths, clock, cgroups, log } = context;
  const { instanceUid, runtimeVersion } = machine;
  const cgroup = await cgroups.find(run.claimUid);
  if (cgroup === undefined) throw new UserError("ClaimCgroupMissing", `the claim pod ${run.claimUid} has no cgroup on this node`);
  const next: Next = { runtimeVersion, startedAt: timestamp(clock) };
  // noted before it exists: whatever dies next, the next agent knows that there may be one
  await updateRun(context, instanceUid, run, (before) => ({ ...before, next }));
  try {
    await makeSockets(paths, instanceUid, machine.identity);
    signal.throwIfAborted();
    const place = { paths, cgroupRoot: context.cgroupRoot, cgroup, trace: context.trace, takesOverFrom: from.pid };
    const launched = await launch(machine, place);
    context.children.set(nextKey(instanceUid), launched);
    await within(launched.entered, DEADLINE.enter, clock, signal);
    await waits(context, instanceUid, launched, signal);
    const process = await identify(launched.pid);
    if (process === undefined) throw new Error("it ended at once");
    await updateNext(context, instanceUid, run, (before) => ({ ...before, ...process }));
    log.info({ instance: `${machine.namespace}/${machine.name}`, pid: launched.pid, runtimeVersion }, "another QEMU waits");
  } catch (cause) {
    const refused = await refusal(context, instanceUid, run, cause);
    await endNext(context, instanceUid);
    throw signal.aborted ? cause : refused;
  }
}

/** Its socket listens when all is ready but the guest. Throws when it ends instead. */
async function waits(context: QemuContext, instanceUid: string, launched: Launched, signal: AbortSignal): Promise<void> {
  const { clock } = context;
  const stop = new AbortController();
  const ended = launched.ended.then(({ code, signal: by }) => {
    throw new Error(`QEMU ended with ${by ?? `exit code ${code}`}`);
  });
  try {
    await within(Promise.race([listens(context, instanceUid, launched.pid, stop.signal), ended]), DEADLINE.start, clock, signal);
  } finally {
    stop.abort();
  }
}

/** Resolves when its socket for descriptors takes connections, or the signal aborts. */
async function listens({ clock, paths }: QemuContext, instanceUid: string, pid: number, signal: AbortSignal): Promise<void> {
  await appears(socketsOf(paths, instanceUid), "cpr", signal);
  // It is there from bind on, and nobody tells of listen, which QEMU does next. Trying to connect would take the old one's place.
  while (!signal.aborted && !(await isListening(pid, IN_SANDBOX))) await sleep(clock, LISTEN_LOOK_MS);
}

/** Resolves when the directory has that entry, or the signal aborts. */
async function appears(directory: string, name: string, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const watcher = watch(directory, (_, entry) => {
    if (entry === name) resolve();
  });
  watcher.on("error", reject);
  const stop = (): void => resolve();
  signal.addEventListener("abort", stop, { once: true });
  try {
    if (!(await exists(join(directory, name)))) await promise;
  } finally {
    watcher.close();
  }
}

/** Why it is not there, or not any more, in its own words. */
export async function refusal(context: QemuContext, instanceUid: string, run: Run, cause: unknown): Promise<UserError> {
  if (cause instanceof UserError) return cause;
  if (((await context.cgroups.oomKills(run.claimUid)) ?? 0) > run.oomKillsBefore) {
    return new UserError("MemoryLimit", "the kernel ended the new QEMU at the memory limit of the claim", { cause });
  }
  const words = lastWords(await stderrOfNext(context, instanceUid));
  return new UserError("QemuFailed", `the new QEMU does not take the guest over: ${words || errorText(cause)}`, { cause });
}

async function stderrOfNext({ paths }: QemuContext, instanceUid: string): Promise<string> {
  try {
    return await readFile(nextName(stderrFile(paths, instanceUid)), "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return "";
    throw error;
  }
}

/** Ends whatever is there beside the process that runs the guest: one that is to take over, one that was taken over from. May be repeated. */
export async function endOthers(context: QemuContext, instanceUid: string): Promise<void> {
  const { run, previous } = await lookAtBoth(context, instanceUid);
  if (previous !== undefined) {
    await kill(previous);
    if (!(await goneWithin(previous, DEADLINE.kill, context.clock))) {
      throw new Error(`the old QEMU's process ${previous.pid} does not end, not even by SIGKILL: it hangs in the kernel`);
    }
  }
  if (run?.next !== undefined) await endNext(context, instanceUid);
}

/** Ends it, whatever it does, and forgets it. May be repeated. One that has taken the guest over is not meant: it is no next one. */
export async function endNext(context: QemuContext, instanceUid: string): Promise<void> {
  const { run, next, process } = await lookAtBoth(context, instanceUid);
  if (run === undefined || run.previous !== undefined) return;
  if (next !== undefined) {
    await kill(next);
    if (!(await goneWithin(next, DEADLINE.kill, context.clock))) {
      throw new Error(`the new QEMU's process ${next.pid} does not end, not even by SIGKILL: it hangs in the kernel`);
    }
  }
  context.children.delete(nextKey(instanceUid));
  await removeNames(context.paths, instanceUid);
  if (run.next === undefined) return;
  // one that the kernel killed for its memory is not held against the guest, which runs on
  const counted = process === undefined ? undefined : await context.cgroups.oomKills(run.claimUid);
  const oomKillsBefore = counted ?? run.oomKillsBefore;
  await updateRun(context, instanceUid, run, (before) => {
    const { next: _, ...rest } = before;
    return { ...rest, oomKillsBefore };
  });
}
