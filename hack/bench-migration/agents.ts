/** What moves take of the agents, and of the network. */
import { placesOf, SCRIPT, type Place } from "../bench/processes.ts";
import { inNode } from "../lab/index.ts";

const TICK_MS = 10;

export interface AgentUse {
  /** Since its start. */
  cpuMs: number;
  rssKib: number;
}

/** Agents by node. */
export const findAgents = async (): Promise<ReadonlyMap<string, Place>> =>
  new Map((await placesOf(SCRIPT.agent)).map((place) => [place.node, place]));

/** Its own time and memory, without that of the programs that it starts. Throws when it has ended: what it used is not known then. */
export const agentUse = async ({ node, pid }: Place): Promise<AgentUse> => {
  const text = await inNode(node, "cat", [`/proc/${pid}/stat`, `/proc/${pid}/status`]);
  const fields = text.slice(text.indexOf(") ") + 2).split(" ");
  const rss = /VmRSS:\s+(\d+) kB/.exec(text)?.[1];
  if (rss === undefined) throw new Error(`process ${pid} on ${node} is no agent`);
  return { cpuMs: (Number(fields[11]) + Number(fields[12])) * TICK_MS, rssKib: Number(rss) };
};

/** Bytes that a node has sent, whatever it was. */
export const sentBytes = async (node: string): Promise<number> =>
  Number(await inNode(node, "cat", ["/sys/class/net/eth0/statistics/tx_bytes"]));
