/** One leader's term: everything that acts, made anew each time, so that nothing of an earlier term can act in a later one. */
import { EventRecorder, type Clock, type KubeClient, type Logger, type ObjectKey } from "../kube/index.ts";
import { certificateController, type CertificateSettings } from "./certificates/controller.ts";
import { makeContext, type Caches, type OperatorContext } from "./context.ts";
import { drainController } from "./drain/controller.ts";
import { DEFAULT_DRAIN, type DrainSettings } from "./drain/settings.ts";
import type { ClaimSettings } from "./instance/claim.ts";
import { orphanController } from "./instance/orphans.ts";
import { Pace } from "./instance/pace.ts";
import type { NetworkSide } from "./instance/scope.ts";
import { instanceController } from "./instance/watches.ts";
import type { MigrationSettings } from "./migration/settings.ts";
import { settleQuotas } from "./migration/surge.ts";
import { migrationController } from "./migration/watches.ts";
import { rolloutController } from "./rollout/watches.ts";
import { runtimeUpdateSettings, type RuntimeUpdateSettings } from "./rollout/settings.ts";
import { poolController } from "./pool/watches.ts";

/** The network's side of a term. */
export interface NetworkTerm extends NetworkSide {
  /** Resolves when stopped and drained. */
  start(signal: AbortSignal): Promise<void>;
  /** Tells instances that should be looked at again. */
  onInstance(fn: (key: ObjectKey) => void): () => void;
}

export interface TermParts {
  /** Refuses to write once the term is over. */
  client: KubeClient;
  caches: Caches;
  log: Logger;
  clock: Clock;
  /** Who this process is, in events. */
  identity: string;
  settings: ClaimSettings;
  migration: MigrationSettings;
  /** Left out: the chart's defaults. */
  updates?: RuntimeUpdateSettings;
  /** Undefined: nodes get no certificates from here. */
  certificates?: CertificateSettings | undefined;
  /** Left out: the chart's defaults. */
  drain?: DrainSettings;
  network: (ctx: OperatorContext) => NetworkTerm;
}

/** For the last events of a term to be written, ms. */
const FLUSH_MS = 2000;

const DEFAULT_UPDATES = runtimeUpdateSettings("{}");

/** Runs all controllers until the signal aborts; resolves when none of them works any more. The caches are the caller's, and filled. */
export async function runTerm(
  {
    client,
    caches,
    log,
    clock,
    identity,
    settings,
    migration,
    updates = DEFAULT_UPDATES,
    certificates,
    drain = DEFAULT_DRAIN,
    network,
  }: TermParts,
  signal: AbortSignal,
): Promise<void> {
  const events = new EventRecorder(client, { controller: "drover.dev/operator", instance: identity, clock, logger: log });
  const operator = makeContext({ ...caches, client, log, clock, events, settings });
  const net = network(operator);
  const instances = instanceController({ ...operator, network: net, pace: new Pace(clock), drain });
  const orphans = orphanController(operator);
  const pools = poolController(operator);
  const moves = migrationController(operator, { moves: migration, updates });
  const signer = certificates === undefined ? [] : [certificateController({ client, clock, log, settings: certificates })];
  const updating = rolloutController(operator, updates);
  const drains = drainController(operator, drain);
  const unwatch = net.onInstance((key) => instances.enqueue(key));
  try {
    const all = [instances, orphans, pools, moves, updating, drains, net, ...signer];
    await Promise.all([settleQuotas(operator), ...all.map((one) => one.start(signal))]);
  } finally {
    unwatch();
    operator.heartbeats.stop();
    await events.flush(FLUSH_MS);
  }
}
