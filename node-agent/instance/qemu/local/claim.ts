/** A guest that runs goes from one claim of its node to another, as its QEMU's process and its note. */
import { updateRun, type QemuContext, type Run } from "../context.ts";

/**
 * The process first, then the note: who dies in between finds it by its pid, and does it again. Memory that was charged to the old claim
 * follows where the kernel does that (cgroup v1 before Linux 6.15); else it stays with that until it is freed.
 */
export async function belongTo(
  context: QemuContext,
  instanceUid: string,
  { run, pid, claimUid }: { run: Run; pid: number; claimUid: string },
): Promise<void> {
  const { cgroups } = context;
  await cgroups.move(pid, claimUid);
  if (run.claimUid === claimUid) return;
  const oomKillsBefore = (await cgroups.oomKills(claimUid)) ?? 0;
  await updateRun(context, instanceUid, run, (before) => ({ ...before, claimUid, oomKillsBefore }));
  await cgroups.remove(run.claimUid);
}
