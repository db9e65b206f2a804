/** How long a guest is silent when the node's switch is replaced under it. */
import type { Instance } from "../../crds/instance.ts";
import { eventually } from "../kit/cluster.ts";
import { statusWithin, whileEchoing } from "../kit/guest.ts";
import { inNode } from "../lab/index.ts";
import type { Probe } from "../lab/probe.ts";
import { median } from "./figures.ts";

const QUIET_MS = 10_000;
const VERSIONS = "/var/lib/drover/ovs/runtime";

export interface Silences {
  killedMs: number;
  upgradedMs: number;
  quietMs: number;
}

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const vswitchd = async (node: string): Promise<string> =>
  (await inNode(node, "cat", ["/run/openvswitch/ovs-vswitchd.pid"])).trim();

/** Until another vswitchd runs, the guest answers again, and a while more: what comes late counts too. */
const replaced = async (node: string, before: string, probe: Probe, ip: string): Promise<void> => {
  await eventually(async () => (await vswitchd(node)) !== before, 90, `another ovs-vswitchd runs on ${node}`);
  await statusWithin(probe, ip, 60);
  await wait(QUIET_MS / 2);
};

/** Gives the node's switch another version's name: the launcher upgrades to it, by the same steps as to a newer one. */
const rename = async (node: string, from: string, to: string): Promise<void> => {
  await inNode(node, "cp", ["-a", `${VERSIONS}/${from}`, `${VERSIONS}/${to}.new`], { deadlineMs: 60_000 });
  const text = `test -e ${VERSIONS}/${to}/VERSION && echo ${to} > ${VERSIONS}/${to}/VERSION; echo ${to} > ${VERSIONS}/current.new`;
  await inNode(node, "mv", [`${VERSIONS}/${to}.new`, `${VERSIONS}/${to}`]);
  await inNode(node, "sh", ["-c", text]);
  await inNode(node, "mv", [`${VERSIONS}/current.new`, `${VERSIONS}/current`]);
};

/** Medians over some rounds, each with both faults. */
export const measureSilences = async (of: Instance, probe: Probe, rounds: number): Promise<Silences> => {
  const { nodeName: node, ip } = of.status ?? {};
  if (node === undefined || ip === undefined) throw new Error(`${of.metadata.name} does not run: ${JSON.stringify(of.status)}`);
  await statusWithin(probe, ip, 60);
  const quiet = await whileEchoing(probe, ip, () => wait(QUIET_MS));
  const silence = async (fault: (before: string) => Promise<unknown>): Promise<number> => {
    const { silenceMs } = await whileEchoing(probe, ip, async () => {
      const before = await vswitchd(node);
      await fault(before);
      await replaced(node, before, probe, ip);
    });
    return silenceMs;
  };
  const killed: number[] = [];
  const upgraded: number[] = [];
  const version = (await inNode(node, "cat", [`${VERSIONS}/current`])).trim();
  const other = `${version}-bench`;
  let current = version;
  try {
    for (let round = 0; round < rounds; round++) {
      killed.push(await silence((pid) => inNode(node, "kill", ["-KILL", pid])));
      // an even number of upgrades ends where it began
      if (round >= 2 * Math.floor(rounds / 2)) break;
      const next = current === version ? other : version;
      upgraded.push(await silence(() => rename(node, current, next)));
      current = next;
    }
  } finally {
    if (current !== version) {
      const before = await vswitchd(node);
      await rename(node, current, version);
      await replaced(node, before, probe, ip);
    }
  }
  return { killedMs: median(killed), upgradedMs: median(upgraded), quietMs: quiet.silenceMs };
};
