import { describe, expect, it } from "vitest";
import type { Node } from "../kube/index.ts";
import { answersDifferently, nodeSeen } from "./nodes.ts";

const node = (
  ready?: "True" | "False" | "Unknown",
  more: { taint?: string; message?: string; labels?: Record<string, string> } = {},
): Node => ({
  apiVersion: "v1",
  kind: "Node",
  metadata: { name: "n1", labels: more.labels ?? {} },
  spec: { taints: more.taint === undefined ? [] : [{ key: more.taint, effect: "NoExecute" }] },
  status: { conditions: ready === undefined ? [] : [{ type: "Ready", status: ready, message: more.message ?? "" }] },
});

const since = (lastTransitionTime: string, bootID: string): Node => ({
  ...node(),
  status: { conditions: [{ type: "Ready", status: "True", lastTransitionTime }], nodeInfo: { bootID } },
});

const OUT = "node.kubernetes.io/out-of-service";

describe("nodeSeen", () => {
  it.each<[string, Node | undefined, boolean, boolean, string]>([
    ["answers", node("True"), true, false, "Answering"],
    ["has no Node, cache not filled", undefined, false, false, "Silent NodeUnknown nothing is known of node n1 yet"],
    ["was deleted", undefined, true, false, "Gone"],
    [
      "is not ready",
      node("Unknown", { message: "Kubelet stopped posting node status." }),
      true,
      false,
      "Silent NodeNotReady node n1 is not ready: Kubelet stopped posting node status.",
    ],
    ["has just been made", node(), true, false, "Silent NodeNotReady node n1 is not ready"],
    [
      "was put out of service",
      node("Unknown", { taint: OUT }),
      true,
      false,
      "Fenced NodeOutOfService node n1 was put out of service",
    ],
    ["is out of service and yet ready: no proof", node("True", { taint: OUT }), true, false, "Answering"],
    [
      "has a silent agent",
      node("True"),
      true,
      true,
      "Silent AgentSilent the agent of node n1 has not been heard of for more than 40 s; look at its pod",
    ],
  ])("a node that %s", (_, object, hasSynced, silent, expected) => {
    const seen = nodeSeen(
      {
        nodes: { get: () => object, hasSynced },
        heartbeats: { silence: () => (silent ? { periodMs: 40_000 } : undefined), isBack: () => true },
      },
      "n1",
    );
    expect("reason" in seen ? `${seen.state} ${seen.reason} ${seen.message}` : seen.state).toBe(expected);
  });
});

it("a node that is ready before its agent was heard of is silent", () => {
  const lives: unknown[] = [];
  const isBack = (_: string, life: unknown) => {
    lives.push(life);
    return false;
  };
  const back = since("2026-01-01T00:00:00Z", "b2");
  const seen = nodeSeen({ nodes: { get: () => back, hasSynced: true }, heartbeats: { silence: () => undefined, isBack } }, "n1");
  expect(seen).toMatchObject({ state: "Silent", reason: "AgentNotBack" });
  expect(lives).toEqual([{ readySince: "2026-01-01T00:00:00Z", bootId: "b2" }]);
});

describe("answersDifferently", () => {
  it.each<[string, Node | undefined, Node | undefined, boolean]>([
    ["came", undefined, node("True"), true],
    ["went", node("True"), undefined, true],
    ["beats on", node("True"), node("True", { labels: { a: "b" } }), false],
    ["was away for a moment", since("t1", "b1"), since("t2", "b1"), true],
    ["was restarted in a moment", since("t1", "b1"), since("t1", "b2"), true],
    ["is lost", node("True"), node("Unknown"), true],
    ["is fenced", node("Unknown"), node("Unknown", { taint: OUT }), true],
    ["gets another taint", node("Unknown"), node("Unknown", { taint: "node.kubernetes.io/unreachable" }), false],
  ])("a node that %s", (_, old, now, expected) => {
    expect(answersDifferently({ key: { name: "n1" }, ...(old && { old }), ...(now && { now }) })).toBe(expected);
  });
});
