/** The bad things that happen to a move. Each is done on loopback and on namespaces of the lab's own, and has its undo. */
import { eventually, kubectl } from "../kit/cluster.ts";
import { freezeApiServer, killApiServer, powerCut, powerOn, startApiServer, thawApiServer } from "../lab/faults.ts";
import { inNode, lab } from "../lab/index.ts";

const SYSTEM = "drover-system";
const AGENT = "^node /opt/drover/node-agent/main.ts$";
const OPERATOR = "^node /opt/drover/operator/main.ts$";

/** Whom a fault strikes. */
export interface Victim {
  source: string;
  target: string;
  /** Name of the guest as QEMU's command line has it: namespace/name. */
  guest: string;
  pool: string;
}

/** What a fault has done, for the verdict. */
export interface Struck {
  /** Nodes whose QEMU was killed, and when (ms since 1970). */
  killed: { node: string; at: number }[];
  /** Makes it whole again; the test goes on only then. */
  mend: () => Promise<void>;
}

export interface Fault {
  name: string;
  strike: (victim: Victim) => Promise<Struck>;
}

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const nothing = async (): Promise<void> => undefined;
const quiet: Struck = { killed: [], mend: nothing };

const pidsOn = async (node: string, pattern: string): Promise<string[]> =>
  (await inNode(node, "sh", ["-c", 'pgrep -f "$0" || true', pattern])).split("\n").filter((line) => line !== "");

/** The pattern is anchored: the shell that looks for it has it in its own command line. */
const signalOn = async (node: string, pattern: string, signal: string): Promise<string[]> => {
  const pids = await pidsOn(node, pattern);
  if (pids.length > 0) await inNode(node, "sh", ["-c", `kill -${signal} "$@" || true`, "kill", ...pids]);
  return pids;
};

const killAgents = async (...nodes: string[]): Promise<Struck> => {
  await Promise.all(nodes.map((node) => signalOn(node, AGENT, "KILL")));
  return quiet;
};

/** QEMU's own command line: `guest=NAMESPACE/NAME,debug-threads=on`. */
const qemuOf = (guest: string): string => `^/usr/bin/qemu-system-x86_64 -name guest=${guest},`;

const killQemu = async (node: string, guest: string): Promise<Struck> => {
  const pids = await signalOn(node, qemuOf(guest), "KILL");
  if (pids.length === 0) throw new Error(`no QEMU of ${guest} runs on ${node}`);
  return { killed: [{ node, at: Date.now() }], mend: nothing };
};

const addressOf = async (node: string): Promise<string> => {
  const found = lab().nodes.find(({ name }) => name === node);
  if (found === undefined) throw new Error(`the lab has no node ${node}`);
  return found.address;
};

/** Frames to the peer go to a hardware address that nobody has: they vanish without a word, as on a cut wire. */
const cutLink = async (from: string, to: string): Promise<() => Promise<void>> => {
  const peer = await addressOf(to);
  await inNode(from, "ip", ["neigh", "replace", peer, "lladdr", "02:00:00:00:00:01", "nud", "permanent", "dev", "eth0"]);
  return async () => void (await inNode(from, "ip", ["neigh", "del", peer, "dev", "eth0"]));
};

const northdNode = async (): Promise<string> =>
  kubectl(["-n", SYSTEM, "get", "pod", "ovn-central-0", "-o", "jsonpath={.spec.nodeName}"]);

/** A node that is dead: no power, and somebody has made sure of it. */
const fence = (node: string): Promise<string> =>
  kubectl(["taint", "node", node, "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute", "--overwrite"]);
const unfence = (node: string): Promise<string> => kubectl(["taint", "node", node, "node.kubernetes.io/out-of-service-"]);

export const faults: readonly Fault[] = [
  { name: "source agent killed", strike: ({ source }) => killAgents(source) },
  { name: "target agent killed", strike: ({ target }) => killAgents(target) },
  { name: "both agents killed", strike: ({ source, target }) => killAgents(source, target) },
  {
    name: "operator killed",
    strike: async () => {
      await Promise.all(lab().nodes.map(({ name }) => signalOn(name, OPERATOR, "KILL")));
      return quiet;
    },
  },
  {
    name: "API server stopped 30 s",
    strike: async () => {
      await freezeApiServer();
      return {
        killed: [],
        mend: async () => {
          await wait(30_000);
          await thawApiServer();
        },
      };
    },
  },
  {
    name: "API server killed",
    strike: async () => {
      await killApiServer();
      return { killed: [], mend: startApiServer };
    },
  },
  { name: "QEMU killed at the target", strike: ({ target, guest }) => killQemu(target, guest) },
  { name: "QEMU killed at the source", strike: ({ source, guest }) => killQemu(source, guest) },
  {
    name: "ovn-northd frozen 10 s",
    strike: async () => {
      const node = await northdNode();
      await signalOn(node, "^ovn-northd", "STOP");
      return {
        killed: [],
        mend: async () => {
          await wait(10_000);
          await signalOn(node, "^ovn-northd", "CONT");
        },
      };
    },
  },
  {
    name: "ovn-controller killed",
    strike: async ({ source, target }) => {
      await Promise.all([source, target].map((node) => signalOn(node, "^ovn-controller", "KILL")));
      return quiet;
    },
  },
  {
    name: "OVS restarted",
    strike: async ({ source, target }) => {
      await Promise.all([source, target].map((node) => signalOn(node, "^ovs-vswitchd", "KILL")));
      return quiet;
    },
  },
  {
    name: "link cut 15 s",
    strike: async ({ source, target }) => {
      const undo = [await cutLink(source, target), await cutLink(target, source)];
      return {
        killed: [],
        mend: async () => {
          await wait(15_000);
          for (const one of undo) await one();
        },
      };
    },
  },
  {
    name: "target pool full",
    strike: async ({ target, pool }) => {
      const file = `/var/lib/drover/pools/${pool}/chaos-fill`;
      const room = await inNode(target, "df", ["--output=avail", "-B1M", `/var/lib/drover/pools/${pool}`]);
      const mib = Number(room.trim().split("\n").at(-1));
      await inNode(target, "fallocate", ["-l", `${mib - 1}M`, file]).catch(() =>
        inNode(target, "fallocate", ["-l", `${mib - 64}M`, file]),
      );
      return {
        killed: [],
        mend: async () => {
          await wait(5_000);
          await inNode(target, "rm", ["-f", file]);
        },
      };
    },
  },
  {
    name: "target node dead and fenced",
    strike: async ({ target }) => {
      await powerCut(target);
      const at = Date.now();
      await eventually(
        async () =>
          (await kubectl(["get", "node", target, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}"])) !== "True",
        90,
        `${target} is not ready`,
      );
      await fence(target);
      return {
        killed: [{ node: target, at }],
        mend: async () => {
          await wait(10_000);
          await powerOn(target, { ready: true });
          await unfence(target);
        },
      };
    },
  },
  {
    name: "source node dead",
    strike: async ({ source }) => {
      await powerCut(source);
      const at = Date.now();
      return {
        killed: [{ node: source, at }],
        mend: async () => {
          await wait(10_000);
          await powerOn(source, { ready: true });
        },
      };
    },
  },
];
