/** The agent's sign of life: a Lease of its own, the smallest object that can be written, which nobody but the operator watches. */
import { resources, sleep, type Clock, type KubeClient, type Lease, type Logger } from "../../kube/index.ts";
import { agentLeaseName, BOOT_ID } from "../../crds/names.ts";
import { errorText } from "../errors.ts";

/** Two renewals may fail, or an agent be replaced, before anyone takes it for silent. */
const DURATION_SECONDS = 60;
const RENEW_MS = 20_000;
const RETRY_MS = 3_000;

export interface HeartbeatOptions {
  client: Pick<KubeClient, "patchMerge" | "create">;
  nodeName: string;
  /** Of the Node object: the Lease goes with it. */
  nodeUid: () => string | undefined;
  namespace: string;
  /** Who holds it: the agent's pod. */
  identity: string;
  /** The kernel's name of this boot of the node. */
  bootId: string;
  /** Resolves when the agent has said what runs on its node, or the signal aborted; until then it is silent. Never rejects. */
  looked: Promise<void>;
  /** Calls when the node's kubelet became ready: whoever waits for the agent since need not wait for the next turn. */
  onNodeReady: (fn: () => void) => () => void;
  clock: Clock;
  log: Logger;
}

/**
 * Renews the Lease until the signal aborts. One small write each time; never throws. The first one says, too, that what stands in the
 * API of the node's guests is of this life of the node.
 */
export async function heartbeat(options: HeartbeatOptions, signal: AbortSignal): Promise<void> {
  const { clock, log, nodeName, looked, onNodeReady } = options;
  let failing = false;
  let early = new AbortController();
  const off = onNodeReady(() => early.abort());
  await looked;
  while (!signal.aborted) {
    let wait = RENEW_MS;
    early = new AbortController();
    try {
      await renew(options);
      failing = false;
    } catch (error) {
      if (!failing) log.warn({ node: nodeName, error: errorText(error) }, "cannot renew the agent's lease");
      failing = true;
      wait = RETRY_MS;
    }
    await sleep(clock, wait, AbortSignal.any([signal, early.signal]));
  }
  off();
}

async function renew({ client, nodeName, nodeUid, namespace, identity, bootId, clock }: HeartbeatOptions): Promise<void> {
  const name = agentLeaseName(nodeName);
  const renewTime = new Date(clock.now()).toISOString().replace("Z", "000Z");
  const annotations = { [BOOT_ID]: bootId };
  const spec = { holderIdentity: identity, leaseDurationSeconds: DURATION_SECONDS, renewTime };
  try {
    await client.patchMerge(resources.leases, { namespace, name }, { metadata: { annotations }, spec });
  } catch (error) {
    if (!isNotFound(error)) throw error;
    const uid = nodeUid();
    const ownerReferences = uid === undefined ? [] : [{ apiVersion: "v1", kind: "Node", name: nodeName, uid }];
    const metadata = { namespace, name, annotations, ownerReferences };
    const lease = { apiVersion: "coordination.k8s.io/v1", kind: "Lease", metadata, spec };
    await client.create<Lease>(resources.leases, lease);
  }
}

const isNotFound = (error: unknown): boolean => error instanceof Error && "isNotFound" in error && error.isNotFound === true;
