/** Memory and processor time of Drover's own processes. */
import { kubectl } from "../kit/cluster.ts";
import { inNode, lab } from "../lab/index.ts";

const SYSTEM = "drover-system";
/** USER_HZ of Linux on every machine that Drover runs on. */
const TICKS_PER_SECOND = 100;

export const SCRIPT = {
  agent: "/opt/drover/node-agent/main.ts",
  operator: "/opt/drover/operator/main.ts",
  launcher: "/opt/drover/node-agent/ovs/main.ts",
} as const;

/** A process on a node. */
export interface Place {
  node: string;
  pid: number;
}

export interface Use {
  rssMb: number;
  /** Since its start. */
  cpuSeconds: number;
}

export const nodeNames = (): string[] => lab().nodes.map(({ name }) => name);

const processOn = async (node: string, script: string): Promise<Place | undefined> => {
  const found = await inNode(node, "sh", ["-c", `pgrep -f '^node ${script}$' || true`]);
  const [pid] = found.split("\n").filter((line) => line !== "");
  return pid === undefined ? undefined : { node, pid: Number(pid) };
};

/** All processes of a script, one per node. */
export const placesOf = async (script: string): Promise<Place[]> =>
  (await Promise.all(nodeNames().map((node) => processOn(node, script)))).filter((place) => place !== undefined);

/** The operator that leads. */
export const leaderPlace = async (): Promise<Place> => {
  const holder = await kubectl(["-n", SYSTEM, "get", "lease", "drover-operator", "-o", "jsonpath={.spec.holderIdentity}"]);
  const pod = holder.split("_")[0] ?? holder;
  const node = await kubectl(["-n", SYSTEM, "get", "pod", pod, "-o", "jsonpath={.spec.nodeName}"]);
  const place = await processOn(node, SCRIPT.operator);
  if (!place) throw new Error(`the leading operator ${holder} has no process on ${node}`);
  return place;
};

export const useOf = async ({ node, pid }: Place): Promise<Use> => {
  const status = await inNode(node, "cat", [`/proc/${pid}/status`]);
  const stat = await inNode(node, "cat", [`/proc/${pid}/stat`]);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const kib = Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]);
  return { rssMb: kib / 1024, cpuSeconds: (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND };
};

/** Percent of one core that each used over some seconds, in which this process only waits. */
export const cpuOver = async (seconds: number, places: readonly Place[]): Promise<number[]> => {
  const read = (): Promise<{ at: number; cpuSeconds: number }[]> =>
    Promise.all(
      places.map(async (place) => {
        const { cpuSeconds } = await useOf(place);
        return { at: performance.now(), cpuSeconds };
      }),
    );
  const before = await read();
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const after = await read();
  return after.map(({ at, cpuSeconds }, index) => {
    const first = before[index];
    return first === undefined ? Number.NaN : (100 * (cpuSeconds - first.cpuSeconds)) / ((at - first.at) / 1000);
  });
};

/** Memory of a Node.js that does nothing: what no program in it can go below. */
export const emptyNodeMb = async (): Promise<number> => {
  const script = "process.stdout.write(String(process.memoryUsage.rss()))";
  return Number(await inNode(nodeNames()[0] ?? "", process.execPath, ["-e", script])) / 2 ** 20;
};
