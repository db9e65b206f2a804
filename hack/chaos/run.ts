/** One case: a guest that writes is moved, held in a phase, struck, mended; and then everything is looked at. */
import type { Migration } from "../../crds/migration.ts";
import { disksOf } from "../../crds/disks.ts";
import { apply, eventually, get, kubectl, waitFor, type GuestReport } from "../kit/cluster.ts";
import { addressOf, checkDisk, instance, status, statusWithin } from "../kit/guest.ts";
import { lab } from "../lab/index.ts";
import type { Probe } from "../lab/probe.ts";
import type { Fault, Struck, Victim } from "./faults.ts";
import { leftovers } from "./leftovers.ts";
import { arm, isStillIn, reached, release, type Phase } from "./phases.ts";
import { forgetTraces, keepTraces, nodeOfQemu, readTraces, watchTraces } from "./traces.ts";
import { mostRunning, pauseProblem, runningNow, runsOf, type Outcome, type RunChange } from "./verdict.ts";

export const NAMESPACE = "chaos";
export const NAME = "vm";
const END_SECONDS = 240;

const ended = (now: Migration): boolean => ["Succeeded", "Failed", "Cancelled"].includes(now.status?.phase ?? "");
const needsDecision = (now: Migration): boolean =>
  now.status?.conditions?.some(({ type, status: is }) => type === "NeedsDecision" && is === "True") ?? false;
const wordsOf = ({ status: now }: Migration): string => now?.conditions?.find(({ type }) => type === "Ready")?.message ?? "";

/** Why each attempt that was tried again had failed, by the events that tell a user. */
const failuresOf = async (name: string): Promise<string> =>
  kubectl([
    "-n",
    NAMESPACE,
    "get",
    "events",
    `--field-selector=reason=Retrying,involvedObject.name=${name}`,
    '-o=jsonpath={range .items[*]}{.message}{"; "}{end}',
  ]).catch(() => "");

/** When the QEMUs that were killed ended, for they could not say so. */
const endsOf = (changes: readonly RunChange[], killed: Struck["killed"]): Map<string, number> => {
  const ends = new Map<string, number>();
  for (const { node, at } of killed)
    for (const { qemu, at: since } of changes) if (nodeOfQemu(qemu) === node && since <= at) ends.set(qemu, at);
  return ends;
};

/** Asks the guest what it has acknowledged, all the time; tells the last answer. */
const watchAcks = (probe: Probe, address: string): { stop: () => Promise<GuestReport | undefined> } => {
  let last: GuestReport | undefined;
  const ending = new AbortController();
  const work = (async () => {
    while (!ending.signal.aborted) {
      last = await status(probe, address).catch(() => last);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  })();
  return {
    stop: async () => {
      ending.abort();
      await work;
      return last;
    },
  };
};

export interface World {
  probe: Probe;
}

/** Waits for the end of the move; where it asks for a decision, decides as somebody who knows what happened. */
const waitForEnd = async (name: string, keep: "Source" | "Target", seconds: number, orDecided = false): Promise<Migration> =>
  eventually(
    async () => {
      const now = await get<Migration>(`dmig/${name}`, NAMESPACE);
      if (needsDecision(now) && now.spec.keep === undefined)
        await kubectl(["-n", NAMESPACE, "patch", `dmig/${name}`, "--type=merge", "-p", JSON.stringify({ spec: { keep } })]);
      return ended(now) || (orDecided && now.spec.keep === "Target") ? now : undefined;
    },
    seconds,
    "the move ends",
  );

/** Where a checkpoint holds it, fast; else slow enough to last longer than the fault, yet not for ever. */
const rateFor = ({ copying }: Phase, { seconds = 0 }: Fault): string => {
  if (copying === undefined) return "64Mi";
  return `${Math.max(1, Math.min(12, Math.floor(copying.mib / (seconds + 8))))}Mi`;
};

/** Makes sure that the move is where it is said to be: by the record, and by what the QEMUs themselves say of who runs. */
const assertIn = async (phase: Phase, victim: Victim, now: Migration, uid: string): Promise<void> => {
  const { state } = now.status?.handover ?? {};
  if (!phase.record.includes(state ?? "")) throw new Error(`in ${phase.name} the record says ${state}`);
  const nodes = runningNow(await readTraces(uid)).map(nodeOfQemu);
  const expected = phase.runs === "nobody" ? [] : [victim[phase.runs]];
  if (nodes.join() !== expected.join())
    throw new Error(
      `in ${phase.name} the guest runs on ${nodes.join(" and ") || "no node"}, not on ${expected.join() || "none"}`,
    );
  if (!(await isStillIn(phase, victim))) throw new Error(`the move is past ${phase.name} before the fault strikes`);
};

const power = async (to: "Running" | "Stopped"): Promise<void> => {
  await kubectl(["-n", NAMESPACE, "patch", `inst/${NAME}`, "--type=merge", "-p", JSON.stringify({ spec: { power: to } })]);
  if (to === "Stopped") await waitFor(`inst/${NAME}`, "jsonpath={.status.phase}=Stopped", 90, NAMESPACE);
};

/** What is left once all have had the time to clear away. */
const leftInTheEnd = (): Promise<string[]> =>
  eventually(
    async () => {
      const found = await leftovers(await instance(NAMESPACE, NAME));
      return found.length === 0 ? found : undefined;
    },
    60,
    "nothing is left",
  ).catch(() => instance(NAMESPACE, NAME).then(leftovers));

/** A guest whose disk could not be written stands still until somebody does what its status asks for. Whether it was so. */
const mendHalted = async (): Promise<boolean> => {
  const { status: now } = await eventually(
    async () => {
      const seen = await instance(NAMESPACE, NAME);
      return seen.status?.phase === "Running" || seen.status?.guest?.reason === "DiskError" ? seen : undefined;
    },
    180,
    "the guest runs, or has halted",
  ).catch(() => instance(NAMESPACE, NAME));
  if (now?.guest?.reason !== "DiskError") return false;
  const spec = { restartedAt: new Date().toISOString() };
  await kubectl(["-n", NAMESPACE, "patch", `inst/${NAME}`, "--type=merge", "-p", JSON.stringify({ spec })]);
  return true;
};

/** Runs one case and judges it; throws only when the test itself cannot be done. */
export const runCase = async (phase: Phase, fault: Fault, { probe }: World): Promise<Outcome> => {
  const begun = performance.now();
  const before = await instance(NAMESPACE, NAME);
  const source = before.status?.nodeName ?? "";
  const target =
    lab()
      .nodes.map(({ name }) => name)
      .find((name) => name !== source && name !== "n3") ?? "";
  const victim: Victim = { source, target, guest: `${NAMESPACE}/${NAME}`, pool: disksOf(before)[0]?.pool ?? "" };
  const { uid } = before.metadata;
  const address = await addressOf(NAMESPACE, NAME);
  const first = await statusWithin(probe, address, 60);
  await forgetTraces();
  await keepTraces(uid);
  await arm(phase, victim);
  const name = `case-${Date.now().toString(36)}`;
  const acks = watchAcks(probe, address);
  const traces = watchTraces(uid);
  // The copy that has run has the newer disk.
  const keep = phase.runs === "target" ? "Target" : "Source";
  let struck: Struck | undefined;
  let why: string | undefined;
  let acknowledged = first.lastAcked;
  try {
    if (phase.cold === true) await power("Stopped");
    await apply({
      apiVersion: "drover.dev/v1alpha1",
      kind: "Migration",
      metadata: { name, namespace: NAMESPACE },
      spec: {
        instance: NAME,
        mode: phase.cold === true ? "Cold" : "Live",
        target: { node: target },
        policy: { maxBytesPerSecond: rateFor(phase, fault), onStall: "Throttle", timeout: "10m" },
      },
    });
    const now = await reached(phase, victim, { namespace: NAMESPACE, name });
    await assertIn(phase, victim, now, uid);
    struck = await fault.strike(victim);
    if (phase.copying === undefined) await release(victim);
    await struck.mend(() =>
      waitForEnd(name, keep, 120, true).then(
        () => undefined,
        () => undefined,
      ),
    );
    // Nothing else held it: the copying itself must have lasted.
    if (phase.copying !== undefined && fault.seconds !== undefined && !(await isStillIn(phase, victim)))
      why = `${phase.name} was over before ${fault.name} was`;
  } finally {
    acknowledged = Math.max(acknowledged, (await acks.stop())?.lastAcked ?? 0);
    await release(victim);
  }
  const end = await waitForEnd(name, keep, END_SECONDS).catch((error: unknown) => {
    why ??= String(error);
    return get<Migration>(`dmig/${name}`, NAMESPACE);
  });
  const left = phase.cold === true ? await leftInTheEnd() : [];
  if (phase.cold === true) await power("Running");
  const halted = await mendHalted();
  await waitFor(`inst/${NAME}`, "condition=Ready", 180, NAMESPACE).catch((error: unknown) => {
    why ??= `the instance is not ready again: ${String(error)}`;
  });
  const after = await statusWithin(probe, address, 90).catch((error: unknown) => {
    why ??= String(error);
    return undefined;
  });
  left.push(...(await leftInTheEnd()));
  await traces.stop();
  const now = await instance(NAMESPACE, NAME);
  const changes = await readTraces(uid);
  const ends = endsOf(changes, struck.killed);
  const maxRunningCopies = mostRunning(changes, ends);
  const running = runningNow(changes).filter((qemu) => !ends.has(qemu));
  const { report, problem } = await checkDisk(now, acknowledged);
  const recordsLost = Math.max(0, acknowledged - report.records);
  if (problem !== undefined) why ??= problem;
  if (maxRunningCopies !== 1) why ??= `${maxRunningCopies} copies ran: ${runsOf(changes, ends)}`;
  if (running.length !== 1 || nodeOfQemu(running[0] ?? "") !== now.status?.nodeName)
    why ??= `it lives on ${now.status?.nodeName}, and the QEMUs that run are ${running.join(", ") || "none"}`;
  if (left.length > 0) why ??= left.join("; ");
  const mayBoot = phase.cold === true || halted || struck.killed.length > 0;
  if (after !== undefined && !mayBoot && after.bootId !== first.bootId) why ??= "the guest was booted anew";
  const { phase: seen = "?", reason } = end.status ?? {};
  if (seen !== "Succeeded" && fault.mayEnd?.includes(seen) !== true) why ??= `it should have succeeded: ${wordsOf(end)}`;
  // Who was killed did not stop, and a halted guest stands still for another reason.
  const hasMoved = seen === "Succeeded" && phase.cold !== true && !halted && struck.killed.length === 0;
  if (hasMoved) why ??= pauseProblem(end.status?.source?.pauseMs, changes, fault.replacesAgent === true);
  if (seen === "Failed" && (reason === undefined || wordsOf(end) === "")) why ??= "it failed without a reason";
  if (needsDecision(end)) why ??= "it still asks for a decision";
  const retries = end.status?.retries ?? 0;
  if (retries > (fault.spoils ?? 1)) why ??= `${retries} attempts failed: ${await failuresOf(name)}`;
  const decided = end.spec.keep === undefined ? "" : `, decided: ${end.spec.keep}`;
  return {
    phase: phase.name,
    fault: fault.name,
    outcome: `${seen}${seen === "Succeeded" ? "" : ` (${reason ?? "?"})`}${retries > 0 ? `, attempt ${retries + 1}` : ""}${decided}${halted ? ", guest halted" : ""}`,
    recordsLost,
    maxRunningCopies,
    leftovers: left,
    ok: why === undefined,
    ...(why === undefined ? {} : { why }),
    ...(seen === "Succeeded" && retries === 0 ? {} : { said: `${await failuresOf(name)}${wordsOf(end)}` }),
    seconds: Math.round((performance.now() - begun) / 1000),
  };
};
