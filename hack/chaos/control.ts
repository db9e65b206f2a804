/** The judge is judged: what is broken on purpose must be condemned, on the same disk and by the same logs as in every other case. */
import { disksOf } from "../../crds/disks.ts";
import type { Instance } from "../../crds/instance.ts";
import { logProblem, type LogReport } from "../guest/check-log.ts";
import { eventually } from "../kit/cluster.ts";
import { addressOf, instance, statusWithin } from "../kit/guest.ts";
import { inNode } from "../lab/index.ts";
import path from "node:path";
import { leftovers } from "./leftovers.ts";
import { NAME, NAMESPACE, type World } from "./run.ts";
import { forgetTraces, nodeOfQemu, readTraces } from "./traces.ts";
import { CONTROL, mostRunning, runningNow, type Outcome } from "./verdict.ts";

const checker = path.join(import.meta.dirname, "../guest/check-log-cli.ts");
const SECTOR = 512;
/** Where the guest's log begins, in sectors. */
const LOG_AT = (64 << 20) / SECTOR;

const outcomeOf = (fault: string, begun: number, why: string | undefined, more: Partial<Outcome> = {}): Outcome => ({
  phase: CONTROL,
  fault,
  outcome: why === undefined ? "condemned" : "acquitted",
  recordsLost: 0,
  maxRunningCopies: 1,
  leftovers: [],
  ok: why === undefined,
  ...(why === undefined ? {} : { why }),
  ...more,
  seconds: Math.round((performance.now() - begun) / 1000),
});

/** A copy of the living guest's disk is damaged; gives what the checker says of it before and after. */
const judgeDamaged = async (
  of: Instance,
  acknowledged: number,
  damage: (file: string, record: number) => string[],
): Promise<{ before: string | undefined; after: string | undefined }> => {
  const node = of.status?.nodeName ?? "";
  const pool = `/var/lib/drover/pools/${disksOf(of)[0]?.pool ?? ""}`;
  const copy = `${pool}/chaos-copy`;
  const judge = async (): Promise<{ report: LogReport; problem: string | undefined }> => {
    const report = JSON.parse(await inNode(node, process.execPath, [checker, copy], { deadlineMs: 60_000 })) as LogReport;
    return { report, problem: logProblem(report, acknowledged) };
  };
  try {
    // At one moment, though the guest writes; a clone must be of the same kind as what it is cloned from.
    const clone = 'touch "$1" && chattr +C "$1" && cp --reflink=always "$0" "$1"';
    await inNode(node, "sh", ["-c", clone, `${pool}/volumes/${of.metadata.uid}/root.raw`, copy]);
    const { report, problem } = await judge();
    await inNode(node, "dd", [`of=${copy}`, "conv=notrunc,fsync", ...damage(copy, report.records)]);
    return { before: problem, after: (await judge()).problem };
  } finally {
    await inNode(node, "rm", ["-f", copy]);
  }
};

/** The sector of a record, counted from 1. */
const sectorOf = (record: number): number => LOG_AT + record - 1;

const truncated = (world: World): Promise<Outcome> =>
  damagedLog(world, "truncated log", /acknowledged and are lost/, (acknowledged) => () => [
    "if=/dev/zero",
    `bs=${SECTOR}`,
    `seek=${sectorOf(acknowledged)}`,
    // Everything from there on: the guest has gone on meanwhile.
    "count=4096",
  ]);

const torn = (world: World): Promise<Outcome> =>
  damagedLog(world, "torn log", /a torn record/, () => (_, last) => [
    "if=/dev/zero",
    `bs=${SECTOR / 2}`,
    `seek=${2 * sectorOf(last) + 1}`,
    "count=1",
  ]);

const damagedLog = async (
  { probe }: World,
  name: string,
  expected: RegExp,
  damage: (acknowledged: number) => (file: string, record: number) => string[],
): Promise<Outcome> => {
  const begun = performance.now();
  const { lastAcked } = await statusWithin(probe, await addressOf(NAMESPACE, NAME), 60);
  // One record less than there are: the torn one is then the last, which nobody has seen acknowledged.
  const { before, after } = await judgeDamaged(await instance(NAMESPACE, NAME), lastAcked - 1, damage(lastAcked - 1));
  const why =
    before !== undefined
      ? `the whole log is condemned: ${before}`
      : after === undefined || !expected.test(after)
        ? `it is not condemned for what it is: ${after ?? "nothing is wrong with it"}`
        : undefined;
  return outcomeOf(name, begun, why);
};

/** A second QEMU of the same name whose CPUs run, on a node where the guest does not live; it says so in a log as every other does. */
const SECOND = [
  'mkdir -p "$0"',
  'usr=$(ls -d /var/lib/drover/runtime/*/usr | head -n 1); export QEMU_MODULE_DIR="$usr/lib/x86_64-linux-gnu/qemu"',
  'setsid "$usr/lib64/ld-linux-x86-64.so.2" --library-path "$usr/lib/x86_64-linux-gnu" "$usr/bin/qemu-system-x86_64" -L "$usr/share/qemu" -L "$usr/share/seabios" -name "guest=$1,debug-threads=on" -nodefaults -display none -machine q35 -m 32 -msg timestamp=on -trace vm_state_notify </dev/null >/dev/null 2>"$0/stderr.log" &',
].join("; ");

const doubleStart = async (): Promise<Outcome> => {
  const begun = performance.now();
  const of = await instance(NAMESPACE, NAME);
  const { uid } = of.metadata;
  const node = ["n1", "n2"].find((name) => name !== of.status?.nodeName) ?? "";
  const directory = `/var/lib/drover/instances/${uid}`;
  await forgetTraces();
  const alone = mostRunning(await readTraces(uid));
  try {
    await inNode(node, "sh", ["-c", SECOND, directory, `${NAMESPACE}/${NAME}`]);
    await eventually(
      async () => runningNow(await readTraces(uid)).some((qemu) => nodeOfQemu(qemu) === node),
      30,
      "the second QEMU runs",
    );
    const together = mostRunning(await readTraces(uid));
    const seen = await leftovers(of);
    const why =
      alone !== 1
        ? `${alone} copies are counted where one runs`
        : together !== 2
          ? `${together} copies are counted where two run`
          : !seen.some((line) => line === `${node}: process`)
            ? `its process is not seen as left over: ${seen.join("; ")}`
            : undefined;
    return outcomeOf("double start", begun, why, { maxRunningCopies: together });
  } finally {
    await inNode(node, "sh", ["-c", 'pkill -KILL -f "guest=$0,"; rm -rf "$1"; true', `${NAMESPACE}/${NAME}`, directory]);
    await forgetTraces();
  }
};

export const controls: readonly { fault: string; run: (world: World) => Promise<Outcome> }[] = [
  { fault: "truncated log", run: truncated },
  { fault: "torn log", run: torn },
  { fault: "double start", run: doubleStart },
];
