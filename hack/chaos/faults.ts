/** The bad things that happen to a move. Each is done on loopback and on namespaces of the lab's own, and has its undo. */
import { eventually, kubectl } from "../kit/cluster.ts";
import { freezeApiServer, killApiServer, powerCut, powerOn, startApiServer, thawApiServer } from "../lab/faults.ts";
import { inNode, lab } from "../lab/index.ts";
import { addressOf, cutLink } from "../kit/link.ts";

const SYSTEM = "drover-system";
const AGENT = "^node /opt/drover/node-agent/main.ts$";
/** It is started by its own loader, from files of the node. */
const VSWITCHD = "^[^ ]*/ld-linux[^ ]* .*/ovs-vswitchd ";
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
  /** Makes it whole again; the test goes on only then. `settled`: the move has ended meanwhile, or will not for long. */
  mend: (settled: () => Promise<void>) => Promise<void>;
}

export interface Fault {
  name: string;
  /** For how long it lasts, where it is not over at once. */
  seconds?: number;
  /** Ends of the Migration that a user can live with, besides Succeeded. */
  mayEnd?: readonly string[];
  /** How many attempts of the move it may spoil, where that is more than one. */
  spoils?: number;
  /** An agent begins anew, and does not know all that the one before it knew. */
  replacesAgent?: true;
  /** Does it, and makes sure that it was done; throws when it was not. */
  strike: (victim: Victim) => Promise<Struck>;
}

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const nothing = async (): Promise<void> => undefined;
const quiet: Struck = { killed: [], mend: nothing };

const pidsOn = async (node: string, pattern: string): Promise<string[]> =>
  (await inNode(node, "sh", ["-c", 'pgrep -f "$0" || true', pattern])).split("\n").filter((line) => line !== "");

const GONE = 'for p in "$@"; do while [ -e "/proc/$p" ] && ! grep -q "^State:.[XZ]" "/proc/$p/status"; do sleep 0.05; done; done';

/** The pattern is anchored: the shell that looks for it has it in its own command line. */
const signalOn = async (node: string, pattern: string, signal: string): Promise<string[]> => {
  const pids = await pidsOn(node, pattern);
  if (pids.length > 0) await inNode(node, "sh", ["-c", `kill -${signal} "$@" || true`, "kill", ...pids]);
  return pids;
};

/** Kills what must be there, and waits until it is gone. */
const killOn = async (node: string, pattern: string): Promise<void> => {
  const pids = await signalOn(node, pattern, "KILL");
  if (pids.length === 0) throw new Error(`nothing on ${node} is called ${pattern}`);
  await inNode(node, "sh", ["-c", GONE, "gone", ...pids], { deadlineMs: 10_000 });
};

const killAgents = async (...nodes: string[]): Promise<Struck> => {
  await Promise.all(nodes.map((node) => killOn(node, AGENT)));
  return quiet;
};

/** QEMU's own command line: `guest=NAMESPACE/NAME,debug-threads=on`. */
const qemuOf = (guest: string): string => `^/usr/bin/qemu-system-x86_64 -name guest=${guest},`;

const killQemu = async (node: string, guest: string): Promise<Struck> => {
  await killOn(node, qemuOf(guest));
  return { killed: [{ node, at: Date.now() }], mend: nothing };
};

const fails = async (work: () => Promise<unknown>, what: string): Promise<void> => {
  const done = await work().then(
    () => true,
    () => false,
  );
  if (done) throw new Error(what);
};

const northdNode = async (): Promise<string> =>
  kubectl(["-n", SYSTEM, "get", "pod", "ovn-central-0", "-o", "jsonpath={.spec.nodeName}"]);

const isApiGone = (): Promise<void> =>
  fails(() => kubectl(["get", "--raw", "/version", "--request-timeout=2s"], { seconds: 4 }), "the API server still answers");

/** Takes all of a file system's room, down to what its driver keeps for itself. */
const FILL = [
  'i=0; for size in 1024 256 64 16 4 1; do while fallocate -l "${size}M" "$0/chaos-fill-$size-$i" 2>/dev/null; do i=$((i+1)); done; done',
  'dd if=/dev/zero of="$0/chaos-rest" bs=64K conv=fsync 2>/dev/null; true',
].join("; ");

/** A node that is dead: no power, and somebody has made sure of it. */
const fence = (node: string): Promise<string> =>
  kubectl(["taint", "node", node, "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute", "--overwrite"]);
const unfence = (node: string): Promise<string> => kubectl(["taint", "node", node, "node.kubernetes.io/out-of-service-"]);

export const faults: readonly Fault[] = [
  { name: "source agent killed", replacesAgent: true, strike: ({ source }) => killAgents(source) },
  { name: "target agent killed", replacesAgent: true, strike: ({ target }) => killAgents(target) },
  { name: "both agents killed", replacesAgent: true, strike: ({ source, target }) => killAgents(source, target) },
  {
    name: "operator killed",
    strike: async () => {
      const killed = await Promise.all(lab().nodes.map(({ name }) => signalOn(name, OPERATOR, "KILL")));
      if (killed.flat().length === 0) throw new Error("no operator runs");
      return quiet;
    },
  },
  {
    name: "API server stopped 30 s",
    seconds: 30,
    strike: async () => {
      await freezeApiServer();
      await isApiGone();
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
      await isApiGone();
      return { killed: [], mend: startApiServer };
    },
  },
  { name: "QEMU killed at the target", strike: ({ target, guest }) => killQemu(target, guest) },
  { name: "QEMU killed at the source", strike: ({ source, guest }) => killQemu(source, guest) },
  {
    name: "ovn-northd frozen 10 s",
    seconds: 10,
    strike: async () => {
      const node = await northdNode();
      const pids = await signalOn(node, "^ovn-northd", "STOP");
      // It stops when it is next scheduled, which on a busy machine may be a little later
      const isStopped = async (): Promise<boolean> =>
        /^T/m.test(await inNode(node, "ps", ["-o", "state=", "-p", pids.join(",")]));
      try {
        await eventually(isStopped, 5, "ovn-northd is stopped");
      } catch (error) {
        await signalOn(node, "^ovn-northd", "CONT");
        throw error;
      }
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
      await Promise.all([source, target].map((node) => killOn(node, "^ovn-controller")));
      return quiet;
    },
  },
  {
    name: "OVS restarted",
    strike: async ({ source, target }) => {
      await Promise.all([source, target].map((node) => killOn(node, VSWITCHD)));
      return quiet;
    },
  },
  {
    name: "link cut 15 s",
    seconds: 15,
    strike: async ({ source, target }) => {
      const undo = [await cutLink(source, target), await cutLink(target, source)];
      const peer = await addressOf(target);
      await fails(() => inNode(source, "ping", ["-c1", "-W1", peer]), `${source} still reaches ${target}`);
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
    // The one that it strikes, and one that finds no room.
    spoils: 2,
    strike: async ({ target, pool }) => {
      const directory = `/var/lib/drover/pools/${pool}`;
      await inNode(target, "sh", ["-c", FILL, directory], { deadlineMs: 60_000 });
      const probe = `${directory}/chaos-probe`;
      await fails(
        () => inNode(target, "dd", ["if=/dev/urandom", `of=${probe}`, "bs=1M", "count=4", "conv=fsync"]),
        `pool ${pool} of ${target} still takes 4 MiB`,
      );
      return {
        killed: [],
        mend: async () => {
          await wait(5_000);
          await inNode(target, "sh", ["-c", 'rm -f "$0"/chaos-*', directory]);
        },
      };
    },
  },
  {
    name: "target node dead and fenced",
    // It is the node that was asked for.
    mayEnd: ["Failed"],
    strike: async ({ target }) => {
      await powerCut(target);
      const killed = [{ node: target, at: Date.now() }];
      await fails(() => inNode(target, "true"), `${target} still has power`);
      return {
        killed,
        mend: async (settled) => {
          await eventually(
            async () =>
              (await kubectl(["get", "node", target, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}"])) !==
              "True",
            90,
            `${target} is not ready`,
          );
          await fence(target);
          await settled();
          await powerOn(target, { ready: true });
          await unfence(target);
        },
      };
    },
  },
  {
    name: "source node dead",
    // The one that it strikes, and one that finds the guest gone.
    spoils: 2,
    strike: async ({ source }) => {
      await powerCut(source);
      const killed = [{ node: source, at: Date.now() }];
      await fails(() => inNode(source, "true"), `${source} still has power`);
      return {
        killed,
        mend: async () => {
          await wait(10_000);
          await powerOn(source, { ready: true });
        },
      };
    },
  },
];
