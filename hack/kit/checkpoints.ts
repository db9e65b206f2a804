/** Agents held at a step of a move or an update, and killed there. */
import { inNode } from "../lab/index.ts";
import { eventually, kubectl } from "./cluster.ts";

/** Where the lab's agents look for what holds them (chart value dev.checkpoints). */
const DIRECTORY = "/var/lib/drover/checkpoints";
const SYSTEM = "drover-system";
const AGENT = "^node /opt/drover/node-agent/main.ts$";

const agentOf = (node: string): string[] => [
  "-l",
  "app.kubernetes.io/component=node-agent",
  `--field-selector=spec.nodeName=${node}`,
];

/** The next move that comes to this step on a node stays there. */
export const hold = async (node: string, side: string, step: string): Promise<void> => {
  await inNode(node, "mkdir", ["-p", DIRECTORY]);
  await inNode(node, "touch", [`${DIRECTORY}/${side}.${step}.hold`]);
};

/** Resolves when it is there. */
export const isHeld = (node: string, side: string, step: string, seconds = 60): Promise<true> =>
  eventually(
    () =>
      inNode(node, "test", ["-e", `${DIRECTORY}/${side}.${step}.reached`]).then(
        () => true as const,
        () => false as const,
      ),
    seconds,
    `${node} is held at ${side}.${step}`,
  );

/** Everything that is held on a node goes on. May be repeated. */
export const letGo = async (node: string): Promise<void> => {
  await inNode(node, "sh", ["-c", 'rm -f "$0"/*', DIRECTORY]);
};

/**
 * Ends a node's agent by SIGKILL and lets what it was held at go; resolves when the next one is ready. Its pod is replaced, so that
 * no back-off of the kubelet is waited for.
 */
export const killAgent = async (node: string): Promise<void> => {
  await inNode(node, "sh", ["-c", 'kill -KILL $(pgrep -f "$0")', AGENT]);
  await letGo(node);
  await kubectl(["-n", SYSTEM, "delete", "pods", ...agentOf(node), "--grace-period=0", "--force"], { seconds: 90 });
  const ready = (): Promise<true> =>
    kubectl(["-n", SYSTEM, "wait", "pods", ...agentOf(node), "--for=condition=Ready", "--timeout=60s"], { seconds: 70 }).then(
      () => true,
    );
  await eventually(ready, 90, `an agent is ready on ${node}`);
};
