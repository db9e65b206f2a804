/** One case: a guest that writes is moved, held in a phase, struck, mended; and then everything is looked at. */
import type { Migration } from "../../crds/migration.ts";
import type { Instance } from "../../crds/instance.ts";
import { disksOf } from "../../crds/disks.ts";
import { apply, eventually, get, kubectl, waitFor, type GuestReport } from "../kit/cluster.ts";
import { addressOf, checkDisk, instance, status, statusWithin } from "../kit/guest.ts";
import { portOptions } from "../kit/northbound.ts";
import { inNode, lab } from "../lab/index.ts";
import type { Probe } from "../lab/probe.ts";
import type { Fault, Struck, Victim } from "./faults.ts";
import { arm, reached, release, type Phase } from "./phases.ts";
import { mostRunning, runChanges, type Outcome } from "./verdict.ts";

export const NAMESPACE = "chaos";
export const NAME = "vm";
const RECORDS = "/var/lib/drover/chaos";
const END_SECONDS = 240;

const ended = (now: Migration): boolean => ["Succeeded", "Failed", "Cancelled"].includes(now.status?.phase ?? "");
const needsDecision = (now: Migration): boolean =>
  now.status?.conditions?.some(({ type, status: is }) => type === "NeedsDecision" && is === "True") ?? false;

/** Every stderr log of the guest's QEMUs gets a second name, which outlives the instance's directory. */
const keepTraces = async (uid: string): Promise<void> => {
  const script =
    'mkdir -p "$1"; for f in /var/lib/drover/instances/"$0"/stderr*.log; do [ -e "$f" ] && ln -f "$f" "$1/$0.$(stat -c %i "$f")" ; done; true';
  for (const { name } of lab().nodes) await inNode(name, "sh", ["-c", script, uid, RECORDS]).catch(() => undefined);
};

const readTraces = async (uid: string): Promise<{ node: string; text: string }[]> => {
  const all: { node: string; text: string }[] = [];
  for (const { name } of lab().nodes) {
    await keepTraces(uid);
    const text = await inNode(name, "sh", ["-c", 'cat "$1/$0".* 2>/dev/null || true', uid, RECORDS]);
    // Pids are the node's own.
    all.push({ node: name, text });
  }
  return all;
};

const forgetTraces = async (): Promise<void> => {
  for (const { name } of lab().nodes) await inNode(name, "rm", ["-rf", RECORDS]).catch(() => undefined);
};

/** The most copies of the guest that ran at one moment since the traces were begun. */
const copiesRunning = async (uid: string, killed: Struck["killed"]): Promise<number> => {
  const changes = (await readTraces(uid)).flatMap(({ node, text }) =>
    runChanges(text).map((change) => ({ ...change, qemu: `${node}/${change.qemu}` })),
  );
  const ends = new Map<string, number>();
  for (const { node, at } of killed) {
    for (const { qemu, at: since } of changes) if (qemu.startsWith(`${node}/`) && since <= at) ends.set(qemu, at);
  }
  return mostRunning(changes, ends);
};

/** What of a guest is on a node where it does not live. */
const leftovers = async (of: Instance): Promise<string[]> => {
  const { uid, name, namespace = "" } = of.metadata;
  const found: string[] = [];
  for (const { name: node } of lab().nodes) {
    if (node === of.status?.nodeName) continue;
    const script = [
      'for p in $(pgrep -f "guest=$1," || true); do echo "process $p"; done',
      'for f in /var/lib/drover/instances/"$0" /var/lib/drover/pools/*/volumes/"$0"; do [ -e "$f" ] && echo "file $f"; done',
      "true",
    ].join("; ");
    const seen = await inNode(node, "sh", ["-c", script, uid, `${namespace}/${name}`]);
    found.push(
      ...seen
        .split("\n")
        .filter(Boolean)
        .map((line) => `${node}: ${line}`),
    );
  }
  const claims = (await kubectl(["-n", NAMESPACE, "get", "pods", "-l", `drover.dev/claim=${name}`, "-o", "name"]))
    .split("\n")
    .filter(Boolean);
  if (claims.length !== 1) found.push(`claims: ${claims.join(" ")}`);
  const port = await portOptions(of.status?.nics?.[0]?.port ?? "");
  if (port.chassis !== of.status?.nodeName || port.strategy !== "")
    found.push(`port: requested-chassis=${port.chassis} ${port.strategy}`);
  return found;
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

/** Waits for the end of the move; where it asks for a decision, decides for the source, as a user would. */
const waitForEnd = async (name: string): Promise<Migration> =>
  eventually(
    async () => {
      const now = await get<Migration>(`dmig/${name}`, NAMESPACE);
      if (needsDecision(now) && now.spec.keep === undefined)
        await kubectl(["-n", NAMESPACE, "patch", `dmig/${name}`, "--type=merge", "-p", '{"spec":{"keep":"Source"}}']);
      return ended(now) ? now : undefined;
    },
    END_SECONDS,
    "the move ends",
  );

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
  await forgetTraces();
  const address = await addressOf(NAMESPACE, NAME);
  const first = await statusWithin(probe, address, 60);
  await keepTraces(uid);
  await arm(phase, victim);
  const name = `case-${Date.now().toString(36)}`;
  const acks = watchAcks(probe, address);
  let struck: Struck | undefined;
  let why: string | undefined;
  let acknowledged = first.lastAcked;
  try {
    await apply({
      apiVersion: "drover.dev/v1alpha1",
      kind: "Migration",
      metadata: { name, namespace: NAMESPACE },
      spec: {
        instance: NAME,
        target: { node: target },
        policy: { maxBytesPerSecond: "12Mi", onStall: "Throttle", timeout: "10m" },
      },
    });
    await reached(phase, victim, { namespace: NAMESPACE, name });
    await keepTraces(uid);
    acknowledged = (await status(probe, address).catch(() => undefined))?.lastAcked ?? acknowledged;
    struck = await fault.strike(victim);
    await release(victim);
    await struck.mend();
  } finally {
    acknowledged = Math.max(acknowledged, (await acks.stop())?.lastAcked ?? 0);
    await release(victim);
  }
  const end = await waitForEnd(name).catch((error: unknown) => {
    why = String(error);
    return get<Migration>(`dmig/${name}`, NAMESPACE);
  });
  await waitFor(`inst/${NAME}`, "condition=Ready", 180, NAMESPACE).catch((error: unknown) => {
    why ??= `the instance is not ready again: ${String(error)}`;
  });
  const after = await statusWithin(probe, address, 90).catch((error: unknown) => {
    why ??= String(error);
    return undefined;
  });
  const maxRunningCopies = await copiesRunning(uid, struck?.killed ?? []);
  const left = await eventually(
    async () => {
      const found = await leftovers(await instance(NAMESPACE, NAME));
      return found.length === 0 ? found : undefined;
    },
    60,
    "nothing is left",
  ).catch(() => instance(NAMESPACE, NAME).then(leftovers));
  const { report, problem } = await checkDisk(await instance(NAMESPACE, NAME), acknowledged);
  const recordsLost = Math.max(0, acknowledged - report.records);
  if (problem !== undefined) why ??= problem;
  if (maxRunningCopies !== 1) why ??= `${maxRunningCopies} copies ran`;
  if (left.length > 0) why ??= left.join("; ");
  if (after !== undefined && struck?.killed.length === 0 && after.bootId !== first.bootId) why ??= "the guest was booted anew";
  const { phase: seen = "?", reason } = end.status ?? {};
  const retries = end.status?.retries ?? 0;
  return {
    phase: phase.name,
    fault: fault.name,
    outcome: `${seen}${seen === "Succeeded" ? "" : ` (${reason ?? "?"})`}${retries > 0 ? `, attempt ${retries + 1}` : ""}`,
    recordsLost,
    maxRunningCopies,
    leftovers: left,
    ok: why === undefined,
    ...(why === undefined ? {} : { why }),
    seconds: Math.round((performance.now() - begun) / 1000),
  };
};
