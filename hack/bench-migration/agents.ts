/** What moves take of the agents, and of the network. */
import { placesOf, SCRIPT, type Place } from "../bench/processes.ts";
import { inNode } from "../lab/index.ts";

const TICK_MS = 10;

/** What an agent keeps, in KiB. */
export interface AgentMemory {
  /** Memory of its own: without pages of files, which come in as parts of Node are used, and are every process's. */
  ownKib: number;
  /** What of it V8 has in use for objects and code. */
  heapKib: number;
}

/** Agents by node. */
export const findAgents = async (): Promise<ReadonlyMap<string, Place>> =>
  new Map((await placesOf(SCRIPT.agent)).map((place) => [place.node, place]));

/** Its own time since its start, in ms, without that of the programs that it starts. Throws when it has ended: what it used is not known then. */
export const agentCpuMs = async ({ node, pid }: Place): Promise<number> => {
  const text = await inNode(node, "cat", [`/proc/${pid}/stat`]);
  const fields = text.slice(text.indexOf(") ") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
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
  const asked = new Map();
  const ask = (method) => new Promise((resolve) => {
    asked.set(asked.size, resolve);
    socket.send(JSON.stringify({ id: asked.size - 1, method }));
  });
  socket.onmessage = ({ data }) => { const { id, result } = JSON.parse(data); asked.get(id)?.(result); };
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = () => reject(new Error("the debugger does not answer"));
  });
  await ask("HeapProfiler.collectGarbage");
  console.log((await ask("Runtime.getHeapUsage")).usedSize);
  socket.close();
`;

/**
 * Right after a whole collection of garbage: without one it is also how long ago V8 last felt like collecting, which grows from move to move
 * where nothing is kept.
 */
export const keptMemory = async ({ node, pid }: Place): Promise<AgentMemory> => {
  const inContainer = ["-t", String(pid), "-m", "-n", "/usr/local/bin/node", "--input-type=module", "-e", COLLECT, String(pid)];
  const heapKib = Number(await inNode(node, "nsenter", inContainer, { deadlineMs: 30_000 })) / 1024;
  const own = /RssAnon:\s+(\d+) kB/.exec(await inNode(node, "cat", [`/proc/${pid}/status`]))?.[1];
  if (own === undefined) throw new Error(`process ${pid} on ${node} is no agent`);
  return { ownKib: Number(own), heapKib };
};

/** Bytes that a node has sent, whatever it was. */
export const sentBytes = async (node: string): Promise<number> =>
  Number(await inNode(node, "cat", ["/sys/class/net/eth0/statistics/tx_bytes"]));
