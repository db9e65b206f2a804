/** Whether a node can be asked: its Node's own word, and its agent's heartbeat. */
import type { Change, Node } from "../kube/index.ts";
import type { Heartbeats, NodeLife } from "./heartbeats.ts";
import type { NodeSeen } from "./instance/facts.ts";

/** Put on a Node by a person or a fencing controller who made sure that it runs nothing any more. */
const OUT_OF_SERVICE = "node.kubernetes.io/out-of-service";

const readyCondition = (node: Node | undefined) => node?.status?.conditions?.find(({ type }) => type === "Ready");
const isFenced = (node: Node | undefined): boolean => node?.spec.taints?.some(({ key }) => key === OUT_OF_SERVICE) ?? false;

/** What tells one life of a node from the next; it ends with a power cut, or when its kubelet stops being ready. */
export const nodeLife = (node: Node | undefined): NodeLife => {
  const ready = readyCondition(node);
  return {
    readySince: ready?.status === "True" ? ready.lastTransitionTime : undefined,
    bootId: node?.status?.nodeInfo?.bootID,
  };
};

interface NodeSources {
  nodes: { get(key: { name: string }): Node | undefined; readonly hasSynced: boolean };
  heartbeats: Pick<Heartbeats, "silence" | "isBack">;
}

/** What the caches know of a node. Only of a synced cache a missing Node means that it is gone. */
export function nodeSeen({ nodes, heartbeats }: NodeSources, name: string): NodeSeen {
  const node = nodes.get({ name });
  if (node === undefined)
    return nodes.hasSynced ? { state: "Gone" } : silent("NodeUnknown", `nothing is known of node ${name} yet`);
  const ready = readyCondition(node);
  if (ready?.status !== "True") {
    const why = ready?.message === undefined || ready.message === "" ? "" : `: ${ready.message}`;
    if (isFenced(node)) return { state: "Fenced", reason: "NodeOutOfService", message: `node ${name} was put out of service` };
    return silent("NodeNotReady", `node ${name} is not ready${why}`);
  }
  const silence = heartbeats.silence(name);
  if (silence === undefined) {
    if (heartbeats.isBack(name, nodeLife(node))) return { state: "Answering" };
    return silent("AgentNotBack", `node ${name} is back, and its agent has yet to say what runs there`);
  }
  const seconds = Math.round(silence.periodMs / 1000);
  return silent("AgentSilent", `the agent of node ${name} has not been heard of for more than ${seconds} s; look at its pod`);
}

const silent = (reason: string, message: string): NodeSeen => ({ state: "Silent", reason, message });

/** Whether a change of a Node matters to the instances on it: most are heartbeats and counters. */
export function answersDifferently({ old, now }: Change<Node>): boolean {
  if (old === undefined || now === undefined) return true;
  const [before, after] = [nodeLife(old), nodeLife(now)];
  return (
    readyCondition(old)?.status !== readyCondition(now)?.status ||
    before.readySince !== after.readySince ||
    before.bootId !== after.bootId ||
    isFenced(old) !== isFenced(now)
  );
}
