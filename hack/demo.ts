/**
 * `make demo`: the main job, told line by line with what a user would type and see, on real parts. Exit status 0 only if all
 * of it is true. Figures go to build/demo.json. KEEP=1 leaves the lab up for playing.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { execa } from "execa";
import { stringify } from "yaml";
import type { Migration } from "../crds/migration.ts";
import { formatBytes } from "../crds/quantity.ts";
import { get, images, kubectl, networkManifest, poolManifest, virtualMachine, waitFor } from "./kit/cluster.ts";
import { labCommand } from "./kit/lab-command.ts";
import { addressOf, ask, checkDisk, instance, observer, processOf, statusWithin, whileEchoing } from "./kit/guest.ts";
import { upgradeDrover } from "./kit/upgrade.ts";
import { thisLab } from "./lab/identity.ts";
import { lab } from "./lab/index.ts";
import { bringOtherRuntime } from "./lab/other-runtime.ts";
import type { Probe } from "./lab/probe.ts";
import { makeProgress } from "./lab/progress.ts";

interface Figures {
  /** From `kubectl apply` until the first virtual machine answers on its network. */
  bootMs: number;
  recordsLost: number;
  bootIdSame: boolean;
  crossNodePing: boolean;
  nameResolved: boolean;
  /** Longest silence of a guest while every agent was killed by SIGKILL. */
  agentKillSilenceMs: number;
  /** How long the guest stood still when it moved. */
  pauseMs: number;
  /** Longest silence of it during the move, for a client on a third node that asks every 10 ms. */
  pingSilenceMs: number;
  /** From applying the Migration until it has succeeded. */
  migrationMs: number;
  ramBytes: number;
  diskBytes: number;
  /** How long the guest stood still when its QEMU was replaced. */
  updatePauseMs: number;
  /** Longest silence of it meanwhile. */
  updateSilenceMs: number;
  /** From applying the Migration until it has succeeded. */
  updateMs: number;
}

const SYSTEM = "drover-system";
const root = path.resolve(import.meta.dirname, "..");

const tell = (text: string): void => void process.stdout.write(`\n\u001b[1m# ${text}\u001b[0m\n`);
const show = (text: string): void => void process.stdout.write(`${text.trimEnd().replaceAll(/^/gm, "  ")}\n`);

/** Types a kubectl command in front of the user and shows the answer. */
const type = async (line: string, input?: string): Promise<string> => {
  process.stdout.write(`  $ kubectl ${line}\n`);
  const answer = await kubectl(line.split(" "), input === undefined ? { seconds: 300 } : { seconds: 300, input });
  show(answer);
  return answer;
};

const manifests = async (): Promise<string> => {
  const { tiny } = await images();
  return [
    poolManifest("local", "8Gi"),
    networkManifest("default", "blue", { ipv4: { cidr: "10.10.0.0/16" }, ipv6: { cidr: "fd42:10::/64" } }),
    virtualMachine("default", "web", { image: tiny, network: "blue", spec: { placement: { nodeSelector: { tier: "web" } } } }),
    virtualMachine("default", "db", { image: tiny, node: "n3", network: "blue" }),
  ]
    .map((object) => stringify(object))
    .join("---\n");
};

/** What `kubectl get -w` shows a user while `work` runs. */
const watching = async <T>(line: string, work: () => Promise<T>): Promise<T> => {
  const { kubectl: command, kubeconfig } = lab();
  process.stdout.write(`  $ kubectl ${line}\n`);
  const watch = execa(command, ["--kubeconfig", kubeconfig, ...line.split(" ")], {
    stdin: "ignore",
    buffer: false,
    reject: false,
  });
  const lines = createInterface({ input: watch.stdout });
  lines.on("line", (text) => show(text));
  try {
    return await work();
  } finally {
    watch.kill();
    await watch;
  }
};

/** web moves to another node while it writes, and while a client talks to it. */
const move = async (
  probe: Probe,
  web: string,
): Promise<Pick<Figures, "pauseMs" | "pingSilenceMs" | "migrationMs" | "ramBytes" | "diskBytes">> => {
  tell("web moves to another node, with its disk, while it writes to disk and memory and a client talks to it every 10 ms");
  await ask(probe, web, "/dirty/20/32");
  const yaml = stringify({
    apiVersion: "drover.dev/v1alpha1",
    kind: "Migration",
    metadata: { name: "web-moves" },
    spec: { instance: "web" },
  });
  show(yaml);
  const begun = performance.now();
  const { silenceMs } = await whileEchoing(probe, web, async () => {
    await type("apply -f -", yaml);
    await watching("get dmig web-moves -w", () => waitFor("dmig/web-moves", "jsonpath={.status.phase}=Succeeded", 180));
  });
  const migrationMs = Math.round(performance.now() - begun);
  await ask(probe, web, "/dirty/0/1");
  await type("get dmig -o wide");
  await type("get inst web -o wide");
  await type("get events --field-selector=involvedObject.name=web-moves");
  const { source } = (await get<Migration>("dmig/web-moves")).status ?? {};
  return {
    pauseMs: Math.round(source?.pauseMs ?? Number.NaN),
    pingSilenceMs: silenceMs,
    migrationMs,
    ramBytes: source?.memoryCounters?.doneBytes ?? 0,
    diskBytes: source?.diskCounters?.doneBytes ?? 0,
  };
};

/** The QEMU under web is replaced by that of the new runtime, while it writes, and while a client talks to it. */
const update = async (probe: Probe, web: string): Promise<Pick<Figures, "updatePauseMs" | "updateSilenceMs" | "updateMs">> => {
  const before = await instance("default", "web");
  tell("web's QEMU is replaced by the new one, on its own node, while it writes to disk and memory and the client talks to it");
  await ask(probe, web, "/dirty/20/32");
  const yaml = stringify({
    apiVersion: "drover.dev/v1alpha1",
    kind: "Migration",
    metadata: { name: "web-updated" },
    spec: { instance: "web", mode: "InPlace" },
  });
  show(yaml);
  const begun = performance.now();
  const { silenceMs } = await whileEchoing(probe, web, async () => {
    await type("apply -f -", yaml);
    await watching("get dmig web-updated -w", () => waitFor("dmig/web-updated", "jsonpath={.status.phase}=Succeeded", 120));
  });
  const updateMs = Math.round(performance.now() - begun);
  await ask(probe, web, "/dirty/0/1");
  await type("get inst -o wide");
  await type("get drollout");
  const after = await instance("default", "web");
  if ((await processOf(after)) === (await processOf(before).catch(() => "gone")))
    throw new Error("web's QEMU is still the old process");
  if (after.status?.guest?.runtimeVersion === before.status?.guest?.runtimeVersion)
    throw new Error("web's QEMU is of the old runtime");
  const { source } = (await get<Migration>("dmig/web-updated")).status ?? {};
  return { updatePauseMs: Math.round(source?.pauseMs ?? Number.NaN), updateSilenceMs: silenceMs, updateMs };
};

/** Ends every pod of a component at once, as a crash would, and waits for the new ones. */
const crash = async (component: string, workload: string): Promise<void> => {
  await type(`-n ${SYSTEM} delete pods -l app.kubernetes.io/component=${component} --grace-period=0 --force`);
  await type(`-n ${SYSTEM} rollout status ${workload} --timeout=120s`);
};

/** @param otherRuntime image of a runtime with another QEMU, which is on the nodes */
const story = async (otherRuntime: string): Promise<Figures> => {
  tell("A cluster of three nodes, with Drover in it by Helm");
  await type("get nodes");
  await type(`-n ${SYSTEM} get pods`);
  await type("get dhost");

  await type("label node n1 n2 tier=web --overwrite");

  tell("One file: a storage pool, a network, two virtual machines");
  const yaml = await manifests();
  show(yaml);
  const start = performance.now();
  await type("apply -f -", yaml);
  await type("wait inst/web inst/db --for=condition=Ready --timeout=180s");
  const observerAt: Promise<Probe> = observer({
    node: "n3",
    namespace: "default",
    network: "blue",
    ipv4: "10.10.255.250/16",
    ipv6: "fd42:10::fa/64",
  });
  const probe = await observerAt;
  try {
    const web = await addressOf("default", "web");
    const before = await statusWithin(probe, web, 60);
    const bootMs = Math.round(performance.now() - start);
    await type("get drover");
    await type("get inst -o wide");

    tell("A client on the network asks web what it is, and web looks for db on the other node by its name");
    show(JSON.stringify(before));
    const db = await addressOf("default", "db");
    await statusWithin(probe, db, 60);
    const { addresses } = await ask<{ addresses: string[] }>(probe, web, "/resolve/db");
    show(`web resolves db: ${addresses.join(" ")}`);
    const ping = await ask<{ ok: boolean; ms: number }>(probe, web, "/ping/db");
    show(`web pings db:    ${ping.ok ? `${ping.ms} ms` : "no answer"}`);

    const moved = await move(probe, web);

    tell("Every agent is killed, then both operators, while a client talks to web every 10 ms");
    const process = await processOf(await instance("default", "web"));
    const echo = await probe.echo(web);
    await crash("node-agent", "daemonset/drover-agent");
    const { silenceMs, sent, received } = await echo.stop();
    show(`longest silence ${silenceMs} ms; ${sent - received} of ${sent} packets lost`);
    await crash("operator", "deployment/drover-operator");

    tell("Drover is upgraded under them, and brings another QEMU; what runs keeps the one that it has");
    const values = { logLevel: "debug", "image.runtime": otherRuntime };
    const set = Object.entries(values).map(([name, value]) => `--set ${name}=${value}`);
    show(`$ helm upgrade drover manifests/chart --reuse-values ${set.join(" ")}`);
    await upgradeDrover(values);
    await waitFor("inst/web", "condition=Ready");
    await waitFor("inst/web", "condition=RuntimeCurrent=False");
    await type("get dhost");
    if ((await processOf(await instance("default", "web"))) !== process) throw new Error("web's QEMU is not the same process");

    const updated = await update(probe, web);
    const after = await statusWithin(probe, web, 60);
    const { report } = await checkDisk(await instance("default", "web"), after.lastAcked);
    show(`web has written ${after.lastAcked} records; ${report.records} are on its disk, whole and in order`);

    tell("And gone again");
    await type("delete inst/web inst/db dnet/blue --timeout=120s");
    return {
      ...moved,
      ...updated,
      bootMs,
      recordsLost: Math.max(0, after.lastAcked - report.records),
      bootIdSame: after.bootId === before.bootId,
      crossNodePing: ping.ok,
      nameResolved: addresses.includes(db),
      agentKillSilenceMs: silenceMs,
    };
  } finally {
    await probe.remove();
  }
};

const table = (figures: Figures): string => {
  const rows: [string, string][] = [
    ["apply until web answers on its network", `${(figures.bootMs / 1000).toFixed(1)} s`],
    ["web finds db by name", figures.nameResolved ? "yes" : "NO"],
    ["web reaches db on another node", figures.crossNodePing ? "yes" : "NO"],
    ["web moved to another node in", `${(figures.migrationMs / 1000).toFixed(1)} s`],
    ["  its guest stood still", `${figures.pauseMs} ms`],
    ["  longest silence for a client on a third node", `${figures.pingSilenceMs} ms`],
    ["  memory and disk moved", `${formatBytes(figures.ramBytes)}, ${formatBytes(figures.diskBytes)}`],
    ["web's QEMU replaced in", `${(figures.updateMs / 1000).toFixed(1)} s`],
    ["  its guest stood still", `${figures.updatePauseMs} ms`],
    ["  longest silence for a client on a third node", `${figures.updateSilenceMs} ms`],
    ["longest silence while every agent was killed", `${figures.agentKillSilenceMs} ms`],
    ["acknowledged records lost", String(figures.recordsLost)],
    ["same boot from beginning to end", figures.bootIdSame ? "yes" : "NO"],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join("\n");
};

/** Whether all that the demo says is true. */
const allTrue = (figures: Figures): boolean =>
  figures.recordsLost === 0 && figures.bootIdSame && figures.crossNodePing && figures.nameResolved;

const main = async (): Promise<boolean> => {
  await labCommand("up");
  const figures = await story(await bringOtherRuntime(thisLab(), makeProgress()));
  await mkdir(path.join(root, "build"), { recursive: true });
  await writeFile(path.join(root, "build/demo.json"), `${JSON.stringify(figures, undefined, 2)}\n`);
  tell("What was seen");
  show(table(figures));
  return allTrue(figures);
};

let good = false;
try {
  good = await main();
} catch (error) {
  process.stderr.write(`demo: ${error instanceof Error ? error.message : String(error)}\n`);
} finally {
  if (process.env["KEEP"] === "1") {
    const keep = await readFile(path.join(root, ".lab/kubeconfig")).then(
      () => `The lab is still up: export KUBECONFIG=${path.join(root, ".lab/kubeconfig")}; make lab-down ends it.`,
      () => "There is no lab to keep.",
    );
    show(keep);
  } else await labCommand("down");
}
process.exitCode = good ? 0 : 1;
