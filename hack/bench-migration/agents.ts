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

/**
 * By Node's debugger, which SIGUSR1 opens on the node's loopback. To be run inside the agent's container; takes its pid there.
 */
const COLLECT = `
  const pid = Number(process.argv[1]);
  const target = async () => (await (await fetch("http://127.0.0.1:9229/json")).json())[0].webSocketDebuggerUrl;
  const patiently = async () => {
    process.kill(pid, "SIGUSR1");
    for (const end = Date.now() + 10_000; ; ) {
      try { return await target(); } catch (error) { if (Date.now() > end) throw error; }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  const socket = new WebSocket(await target().catch(patiently));
  await new Promise((resolve, reject) => {
    socket.onopen = () => socket.send(JSON.stringify({ id: 1, method: "HeapProfiler.collectGarbage" }));
    socket.onmessage = ({ data }) => { if (JSON.parse(data).id === 1) resolve(); };
    socket.onerror = () => reject(new Error("the debugger does not answer"));
  });
  socket.close();
`;

/**
 * What an agent keeps, in KiB: its memory right after a whole collection of garbage. Without one it is also how long ago V8 last felt like
 * collecting, which grows from move to move where nothing is kept.
 */
export const keptKib = async (place: Place): Promise<number> => {
  const { node, pid } = place;
  const inContainer = ["-t", String(pid), "-m", "-n", "/usr/local/bin/node", "--input-type=module", "-e", COLLECT, String(pid)];
  await inNode(node, "nsenter", inContainer, { deadlineMs: 30_000 });
  return (await agentUse(place)).rssKib;
};

/** Bytes that a node has sent, whatever it was. */
export const sentBytes = async (node: string): Promise<number> =>
  Number(await inNode(node, "cat", ["/sys/class/net/eth0/statistics/tx_bytes"]));
