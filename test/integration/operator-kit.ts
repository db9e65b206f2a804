/** An operator in the test's process, on a real API server and scheduler, with stand-ins for what a node and OVN would do. */
import type { Instance } from "../../crds/instance.ts";
import { realClock, silentLogger } from "../../kube/index.ts";
import { makeCaches, startCaches } from "../../operator/context.ts";
import { migrationSettings, type MigrationSettings } from "../../operator/migration/settings.ts";
import { runtimeUpdateSettings, type RuntimeUpdateSettings } from "../../operator/rollout/settings.ts";
import { runTerm } from "../../operator/term.ts";
import { OPERATOR_NAMESPACE, type Cluster } from "./support/cluster.ts";
import type { NetworkStandIn } from "./support/network-stand-in.ts";

export { NAMESPACE, startCluster, until, writesOf, type Cluster } from "./support/cluster.ts";
export { NetworkStandIn } from "./support/network-stand-in.ts";
export { NodeStandIn } from "./support/node-stand-in.ts";
export {
  agentBeats,
  agentForgotten,
  hostSays,
  makeNetwork,
  makeNode,
  makePool,
  nodeReady,
  offerRoom,
} from "./support/objects.ts";

export interface RunningOperator {
  /** Resolves when it was killed by `killBeforeWrite`. */
  killed: Promise<void>;
  stop(): Promise<void>;
}

/** An operator in this process, with caches of its own. From its nth write on it does nothing any more, as if killed. */
export async function startOperator(
  cluster: Pick<Cluster, "client">,
  network: NetworkStandIn,
  options: { killBeforeWrite?: number; migration?: MigrationSettings; updates?: RuntimeUpdateSettings } = {},
): Promise<RunningOperator> {
  const ended = new AbortController();
  let writes = 0;
  let dead = false;
  let die: () => void = () => undefined;
  const killed = new Promise<void>((resolve) => {
    die = resolve;
  });
  const guard = () => {
    if (dead || writes >= (options.killBeforeWrite ?? Number.POSITIVE_INFINITY)) {
      dead = true;
      die();
      throw new Error("this operator is dead");
    }
    writes += 1;
  };
  const client = cluster.client.with({ guard, userAgent: "drover-operator" });
  const networkIndexes = {
    network: (one: Instance) => (one.spec.nics ?? []).map((nic) => `${one.metadata.namespace}/${nic.network}`),
  };
  const caches = makeCaches(client, { namespace: OPERATOR_NAMESPACE, networkIndexes, logger: silentLogger });
  await startCaches(caches, ended.signal);
  const settings = {
    holderImage: "drover/holder:test",
    holderPullPolicy: "IfNotPresent" as const,
    cpuOvercommit: 4,
    priorityClassName: "drover-claim",
  };
  const migration = options.migration ?? migrationSettings("{}");
  const updates = options.updates ?? runtimeUpdateSettings("{}");
  const term = runTerm(
    {
      client,
      caches,
      log: silentLogger,
      clock: realClock,
      identity: "test",
      settings,
      migration,
      updates,
      network: network.term,
    },
    ended.signal,
  );
  const stop = async () => {
    ended.abort();
    await term;
    dead = true;
  };
  return { killed, stop };
}
