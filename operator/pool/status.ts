/** A pool's status, summed up from what the nodes say of it. */
import type { HostPool } from "../../crds/host.ts";
import type { PoolStatus, StoragePool } from "../../crds/pool.ts";
import { setCondition } from "../../kube/index.ts";
import { formatBytes } from "../../crds/quantity.ts";

/** One node's word on the pool; `silent`: the node cannot be asked, so its word is old. */
export interface NodePool {
  node: string;
  pool: HostPool;
  silent?: { reason: string; message: string };
}

export interface PoolFacts {
  pool: StoragePool;
  nodes: readonly NodePool[];
  /** Whether any node runs Drover's agent. */
  hasAgents: boolean;
  /** `namespace/name` of the instances with a disk in it. */
  users: readonly string[];
  now: Date;
}

/** Names in a sentence; a pool may have hundreds of users. */
const SHOWN = 5;

function some(names: readonly string[]): string {
  const shown = [...names].sort().slice(0, SHOWN).join(", ");
  return names.length > SHOWN ? `${shown} and ${names.length - SHOWN} more` : shown;
}

interface Verdict {
  status: "True" | "False";
  reason: string;
  message: string;
}

/** What a node says of a pool that serves all the same, such as that it could not be made larger. */
function limited({ node, pool, silent }: NodePool): { reason: string; text: string } | undefined {
  if (silent !== undefined || !pool.ready || pool.reason === undefined) return undefined;
  return { reason: pool.reason, text: `node ${node}: ${pool.message ?? "the node says no more"}` };
}

const andMore = (others: readonly unknown[]): string => (others.length === 0 ? "" : ` (and ${others.length} more)`);

function failing({ node, pool, silent }: NodePool): { reason: string; text: string } | undefined {
  if (silent !== undefined) return { reason: silent.reason, text: silent.message };
  if (pool.ready) return undefined;
  return { reason: pool.reason ?? "NotReady", text: `node ${node}: ${pool.message ?? "the pool is not ready yet"}` };
}

function deleting({ users, nodes }: PoolFacts): Verdict {
  if (users.length > 0) {
    const message = `it is used by ${users.length === 1 ? "the instance" : "the instances"} ${some(users)}; delete them first`;
    return { status: "False", reason: "InUse", message };
  }
  const where = some(nodes.map(({ node }) => node));
  const said = nodes.map(failing).find((one) => one !== undefined)?.text;
  const message = `waiting for ${where} to take it down${said === undefined ? "" : ` (${said})`}`;
  return { status: "False", reason: "Deleting", message };
}

const noNodes = (message: string): Verdict => ({ status: "False", reason: "NoNodes", message });

function verdict(facts: PoolFacts): Verdict {
  const { pool, nodes } = facts;
  if (pool.metadata.deletionTimestamp !== undefined) return deleting(facts);
  if (nodes.length === 0) {
    const selected = pool.spec.nodeSelector?.matchLabels;
    if (!facts.hasAgents) return noNodes("no node has it: no node runs Drover's agent yet");
    if (selected === undefined) return noNodes("no node has it yet: the nodes' agents are about to make it");
    return noNodes("no node has it: no node with Drover's agent has the labels of spec.nodeSelector");
  }
  const failures = nodes.map(failing).filter((one) => one !== undefined);
  const [first, ...others] = failures;
  if (first !== undefined) return { status: "False", reason: first.reason, message: `${first.text}${andMore(others)}` };
  const everywhere = nodes.length === 1 ? "ready on its node" : `ready on all ${nodes.length} nodes`;
  const [limit, ...limits] = nodes.map(limited).filter((one) => one !== undefined);
  if (limit === undefined) return { status: "True", reason: "Ready", message: everywhere };
  return { status: "True", reason: limit.reason, message: `${everywhere}; but ${limit.text}${andMore(limits)}` };
}

/** The status of a pool, all of it. Pure; `nodes` in any order. */
export function computePoolStatus(facts: PoolFacts): PoolStatus {
  const { pool, now } = facts;
  const nodes = [...facts.nodes].sort((a, b) => a.node.localeCompare(b.node));
  // What all nodes share is there once, however many of them tell of it.
  const join = pool.spec.shared === true ? Math.max : (a: number, b: number) => a + b;
  const sum = (pick: (one: HostPool) => number | undefined) =>
    formatBytes(nodes.reduce((total, { pool: one }) => join(total, pick(one) ?? 0), 0));
  const observedGeneration = pool.metadata.generation;
  const ready = verdict({ ...facts, nodes });
  return {
    observedGeneration,
    conditions: setCondition(pool.status?.conditions, { type: "Ready", ...ready, observedGeneration }, now),
    size: sum(({ sizeBytes }) => sizeBytes),
    used: sum(({ usedBytes }) => usedBytes),
    directory: pool.status?.directory ?? nodes.find(({ pool: one }) => one.ready && one.directory !== undefined)?.pool.directory,
    nodes: `${nodes.filter((one) => failing(one) === undefined).length}/${nodes.length}`,
  };
}
