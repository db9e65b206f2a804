/** The memory of a claim: what it may use, and something that uses it up. */
import { dirname } from "node:path";
import type { Instance } from "../../crds/instance.ts";
import { accountOf, accountsIn } from "../bench/memory.ts";
import { inNode } from "../lab/index.ts";

const MIB = 2 ** 20;

/** Limit of the pod's own cgroup, bytes. */
export const limitOf = async (of: Instance): Promise<number> => {
  const { nodeName = "", guest } = of.status ?? {};
  const pod = dirname(await accountOf(nodeName, guest?.claimUid ?? ""));
  return Number(await inNode(nodeName, "sh", ["-c", 'cd "$0"; cat memory.limit_in_bytes || cat memory.max', pod]));
};

/** What is left of it, bytes; files' pages count as free, for the kernel takes them back. */
export const roomIn = async (of: Instance): Promise<number> => {
  const { nodeName = "", guest } = of.status ?? {};
  const pod = dirname(await accountOf(nodeName, guest?.claimUid ?? ""));
  const { usage, pageCache } = await accountsIn(nodeName, pod);
  return (await limitOf(of)) - usage + pageCache;
};

/** Takes memory in the pod's cgroup, beside the guest, and is the first to go should there be too little. Says its pid. */
const EAT = [
  'echo $$ >"$0"/cgroup.procs',
  "echo 1000 >/proc/$$/oom_score_adj",
  `perl -e '$x = "x" x ($ARGV[0] * 1048576); kill "STOP", $$' "$1" >/dev/null 2>&1 &`,
  "echo $!",
].join("\n");

/** Leaves so much of the claim's limit free. Gives a function that ends that. cgroup v1, where a pod's own cgroup takes processes. */
export const fillClaim = async (of: Instance, freeMib: number): Promise<() => Promise<void>> => {
  const { nodeName = "", guest } = of.status ?? {};
  const claimUid = guest?.claimUid ?? "";
  const mib = Math.floor((await roomIn(of)) / MIB) - freeMib;
  const pod = dirname(await accountOf(nodeName, claimUid));
  const pid = (await inNode(nodeName, "sh", ["-ec", EAT, pod, String(mib)])).trim();
  return async () => void (await inNode(nodeName, "sh", ["-c", 'kill -KILL "$0"; true', pid]));
};
