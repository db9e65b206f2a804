/** The agent's sign of life: a Lease of its own, the smallest object that can be written, which nobody but the operator watches. */
import { resources, sleep, type Clock, type KubeClient, type Lease, type Logger } from "../../kube/index.ts";
import { agentLeaseName } from "../../crds/names.ts";
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
  clock: Clock;
  log: Logger;
}

/** Renews the Lease until the signal aborts. One small write each time; never throws. */
export async function heartbeat(options: HeartbeatOptions, signal: AbortSignal): Promise<void> {
  const { clock, log, nodeName } = options;
  let failing = false;
  while (!signal.aborted) {
    let wait = RENEW_MS;
    try {
      await renew(options);
      failing = false;
    } catch (error) {
      if (!failing) log.warn({ node: nodeName, error: errorText(error) }, "cannot renew the agent's lease");
      failing = true;
      wait = RETRY_MS;
    }
    await sleep(clock, wait, signal);
  }
}

async function renew({ client, nodeName, nodeUid, namespace, identity, clock }: HeartbeatOptions): Promise<void> {
  const name = agentLeaseName(nodeName);
  const renewTime = new Date(clock.now()).toISOString().replace("Z", "000Z");
  const spec = { holderIdentity: identity, leaseDurationSeconds: DURATION_SECONDS, renewTime };
  try {
    await client.patchMerge(resources.leases, { namespace, name }, { spec });
  } catch (error) {
    if (!isNotFound(error)) throw error;
    const uid = nodeUid();
    const ownerReferences = uid === undefined ? [] : [{ apiVersion: "v1", kind: "Node", name: nodeName, uid }];
    const lease = { apiVersion: "coordination.k8s.io/v1", kind: "Lease", metadata: { namespace, name, ownerReferences }, spec };
    await client.create<Lease>(resources.leases, lease);
  }
}

const isNotFound = (error: unknown): boolean => error instanceof Error && "isNotFound" in error && error.isNotFound === true;
