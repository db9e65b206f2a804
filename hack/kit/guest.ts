/** Talking to guests as a client on their network would, and looking at them from their node. */
import { readdir } from "node:fs/promises";
import path from "node:path";
import { inNode, lab } from "../lab/index.ts";
import { makeProbe, type EchoLog, type Probe } from "../lab/probe.ts";
import { logProblem, type LogReport } from "../guest/check-log.ts";
import { disksOf } from "../../crds/disks.ts";
import type { Instance } from "../../crds/instance.ts";
import { eventually, get, kubectl, type GuestReport } from "./cluster.ts";

/** Name of the logical switch that a Network became, as OVN knows it. */
export const logicalSwitch = async (namespace: string, network: string): Promise<string> => {
  const uid = (await get<{ metadata: { uid: string } }>(`dnet/${network}`, namespace)).metadata.uid;
  const all = await kubectl([
    "-n",
    "drover-system",
    "exec",
    "ovn-central-0",
    "-c",
    "nb",
    "--",
    "ovn-nbctl",
    "--db=unix:/run/ovn/ovnnb_db.sock",
    "--format=json",
    "--columns=name,external_ids",
    "list",
    "Logical_Switch",
  ]);
  const rows = (JSON.parse(all) as { data: [string, unknown][] }).data;
  const row = rows.find(([, ids]) => JSON.stringify(ids).includes(uid));
  if (!row) throw new Error(`no logical switch belongs to network ${namespace}/${network}:\n${all}`);
  return row[0];
};

/**
 * Spec of a network on which an observer listens. Drover does not know of the observer, and may give its address to a guest:
 * of a /24 once in 253 times, which among a hundred guests is too often; of a /16 once in 65 533.
 */
export const OBSERVED_NETWORK = { ipv4: { cidr: "10.60.0.0/16" } };
const OBSERVER_IPV4 = "10.60.255.250/16";

/** An observer on a network; without an IPv4 address it has the one that is meant for it in OBSERVED_NETWORK. */
export const observer = async (options: {
  node: string;
  namespace: string;
  network: string;
  ipv4?: string;
  ipv6?: string;
  gateway?: string;
}): Promise<Probe> => {
  const { namespace, network, ...rest } = options;
  return makeProbe({ ipv4: OBSERVER_IPV4, ...rest, logicalSwitch: await logicalSwitch(namespace, network) });
};

const host = (address: string): string => (address.includes(":") ? `[${address}]` : address);

/** What the guest's own program answers. */
export const ask = async <T>(probe: Probe, address: string, what: string, seconds?: number): Promise<T> =>
  JSON.parse(await probe.fetch(`http://${host(address)}${what}`, seconds)) as T;

export const status = (probe: Probe, address: string): Promise<GuestReport> => ask<GuestReport>(probe, address, "/status");

export const statusWithin = (probe: Probe, address: string, seconds: number): Promise<GuestReport> =>
  eventually(() => status(probe, address), seconds, `the guest at ${address} answers`);

export const instance = (namespace: string, name: string): Promise<Instance> => get<Instance>(`inst/${name}`, namespace);

export const addressOf = async (namespace: string, name: string): Promise<string> => {
  const ip = (await instance(namespace, name)).status?.ip;
  if (ip === undefined) throw new Error(`${namespace}/${name} has no address`);
  return ip;
};

/** QEMU's process as its node sees it: pid and when it started, so that a reused pid is not taken for it. */
export const processOf = async (of: Instance): Promise<string> => {
  const { nodeName, guest } = of.status ?? {};
  if (nodeName === undefined || guest?.pid === undefined)
    throw new Error(`${of.metadata.name} does not run: ${JSON.stringify(of.status)}`);
  const stat = await inNode(nodeName, "cat", [`/proc/${guest.pid}/stat`]);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return `${nodeName}/${guest.pid}/${fields[19] ?? "?"}`;
};

/** Root disk of an instance as a file of this machine, for the checker; read through the root directory of the node's first process. */
export const checkDisk = async (
  of: Instance,
  acknowledged: number,
): Promise<{ report: LogReport; problem: string | undefined }> => {
  const { nodeName } = of.status ?? {};
  if (nodeName === undefined) throw new Error(`${of.metadata.name} has no node`);
  const inside = `/var/lib/drover/pools/${disksOf(of)[0]?.pool ?? ""}/volumes/${of.metadata.uid}`;
  const [disk = ""] = (await inNode(nodeName, "ls", [inside])).split("\n").filter((file) => file.startsWith("root"));
  const script = path.join(import.meta.dirname, "../guest/check-log-cli.ts");
  const report = JSON.parse(
    await inNode(nodeName, process.execPath, [script, path.join(inside, disk)], { deadlineMs: 60_000 }),
  ) as LogReport;
  return { report, problem: logProblem(report, acknowledged) };
};

/** Runs `work` while a probe sends echoes to a guest; gives the longest silence and when it began, in milliseconds, beside the result. */
export const whileEchoing = async <T>(
  probe: Probe,
  address: string,
  work: () => Promise<T>,
): Promise<{ silenceMs: number; silentFrom: number; result: T }> => {
  const log: EchoLog = await probe.echo(address);
  try {
    const result = await work();
    const { silenceMs, silentFrom } = await log.stop();
    return { silenceMs, silentFrom, result };
  } catch (error) {
    await log.stop().catch(() => undefined);
    throw error;
  }
};

/** Files, taps and processes of an instance that are still on a node. */
export const leftOn = async (node: string, uid: string): Promise<string[]> => {
  const volumes = await inNode(node, "find", ["/var/lib/drover", "-xdev", "-name", `*${uid}*`]);
  const pools = await inNode(node, "find", ["/var/lib/drover/pools", "-maxdepth", "4", "-name", `*${uid}*`]);
  return [...volumes.split("\n"), ...pools.split("\n")].filter((line) => line !== "");
};

/** Puts a file where the lab serves images; gives its address. */
export const serveFile = async (name: string, write: (file: string) => Promise<void>): Promise<string> => {
  const up = lab();
  await write(path.join(up.imageDirectory, name));
  if (!(await readdir(up.imageDirectory)).includes(name)) throw new Error(`${name} was not written`);
  return `${up.imageUrl}/${name}`;
};
